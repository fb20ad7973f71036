"""Sfumato: differentially private image classification in JAX, and DP-SGD for any JAX loss.

The public names are loaded when they are first used, so that `import sfumato` and `sfumato --help`
stay fast. Type checkers and editors read them from the block below; a test holds both lists equal.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfumato import data as data
    from sfumato import weights as weights
    from sfumato.clip import BoundedSum as BoundedSum
    from sfumato.clip import ClippedGrad as ClippedGrad
    from sfumato.clip import Sensitivity as Sensitivity
    from sfumato.clip import check_isolation as check_isolation
    from sfumato.clip import clipped_grad as clipped_grad
    from sfumato.clip import explain as explain
    from sfumato.core.errors import ArgumentError as ArgumentError
    from sfumato.core.errors import BudgetError as BudgetError
    from sfumato.core.errors import DataError as DataError
    from sfumato.core.errors import LedgerError as LedgerError
    from sfumato.core.errors import RunError as RunError
    from sfumato.core.errors import SfumatoError as SfumatoError
    from sfumato.core.errors import WeightsError as WeightsError
    from sfumato.core.keys import SecretKey as SecretKey
    from sfumato.estimators.image_classifier import DPImageClassifier as DPImageClassifier
    from sfumato.estimators.linear_classifier import DPLinearClassifier as DPLinearClassifier
    from sfumato.noise import BandedGaussian as BandedGaussian
    from sfumato.noise import Gaussian as Gaussian
    from sfumato.noise import LatticeGaussian as LatticeGaussian
    from sfumato.noise import Mechanism as Mechanism
    from sfumato.privacy.accountants import epsilon as epsilon
    from sfumato.privacy.calibration import noise_multiplier as noise_multiplier
    from sfumato.privacy.events import BandedGaussianEvent as BandedGaussianEvent
    from sfumato.privacy.events import CyclicPoissonEvent as CyclicPoissonEvent
    from sfumato.privacy.events import Event as Event
    from sfumato.privacy.events import FixedSizeEvent as FixedSizeEvent
    from sfumato.privacy.events import GaussianEvent as GaussianEvent
    from sfumato.privacy.events import NotPrivateEvent as NotPrivateEvent
    from sfumato.privacy.events import PoissonSampledEvent as PoissonSampledEvent
    from sfumato.privacy.events import SelectedEvent as SelectedEvent
    from sfumato.privacy.events import TruncatedPoissonEvent as TruncatedPoissonEvent
    from sfumato.privacy.guarantee import Guarantee as Guarantee
    from sfumato.privacy.ledger import Ledger as Ledger
    from sfumato.report import write_report as report  # noqa: F401  # the room may be called
    from sfumato.report import write_report as write_report
    from sfumato.runs.auditing import attack as attack
    from sfumato.runs.classifier import Classifier as Classifier
    from sfumato.runs.from_python import run as run
    from sfumato.sampling import CyclicPoisson as CyclicPoisson
    from sfumato.sampling import FullBatch as FullBatch
    from sfumato.sampling import Poisson as Poisson
    from sfumato.sampling import Sampler as Sampler
    from sfumato.sampling import TruncatedPoisson as TruncatedPoisson
    from sfumato.sampling import WithoutReplacement as WithoutReplacement
    from sfumato.serving.loading import load as load
    from sfumato.solve.fc import FeatureCovariance as FeatureCovariance
    from sfumato.solve.linear import linear_head as linear_head
    from sfumato.solve.linear import solver as solver
    from sfumato.train.calibrate import calibrate as calibrate
    from sfumato.train.dpsgd import DPSGD as DPSGD
    from sfumato.train.feed import physical_batches as physical_batches
    from sfumato.train.loop import Procedure as Procedure

_HOMES = {
    "sfumato.clip": (
        "BoundedSum",
        "ClippedGrad",
        "Sensitivity",
        "check_isolation",
        "clipped_grad",
        "explain",
    ),
    "sfumato.core.errors": (
        "ArgumentError",
        "BudgetError",
        "DataError",
        "LedgerError",
        "RunError",
        "SfumatoError",
        "WeightsError",
    ),
    "sfumato.core.keys": ("SecretKey",),
    "sfumato.estimators.image_classifier": ("DPImageClassifier",),
    "sfumato.estimators.linear_classifier": ("DPLinearClassifier",),
    "sfumato.noise": ("BandedGaussian", "Gaussian", "LatticeGaussian", "Mechanism"),
    "sfumato.privacy.accountants": ("epsilon",),
    "sfumato.privacy.calibration": ("noise_multiplier",),
    "sfumato.privacy.events": (
        "BandedGaussianEvent",
        "CyclicPoissonEvent",
        "Event",
        "FixedSizeEvent",
        "GaussianEvent",
        "NotPrivateEvent",
        "PoissonSampledEvent",
        "SelectedEvent",
        "TruncatedPoissonEvent",
    ),
    "sfumato.privacy.guarantee": ("Guarantee",),
    "sfumato.privacy.ledger": ("Ledger",),
    "sfumato.report": ("write_report",),
    "sfumato.runs.auditing": ("attack",),
    "sfumato.runs.classifier": ("Classifier",),
    "sfumato.runs.from_python": ("run",),
    "sfumato.sampling": (
        "CyclicPoisson",
        "FullBatch",
        "Poisson",
        "Sampler",
        "TruncatedPoisson",
        "WithoutReplacement",
    ),
    "sfumato.serving.loading": ("load",),
    "sfumato.solve.fc": ("FeatureCovariance",),
    "sfumato.solve.linear": ("linear_head", "solver"),
    "sfumato.train.calibrate": ("calibrate",),
    "sfumato.train.dpsgd": ("DPSGD",),
    "sfumato.train.feed": ("physical_batches",),
    "sfumato.train.loop": ("Procedure",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.5.2"
_ROOMS = ("data", "report", "weights")
__all__ = [*_ROOMS, *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"sfumato.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sfumato' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
