"""Sfumato: differentially private image classification in JAX.

The public names are loaded when they are first used, so that `import sfumato` and `sfumato --help`
stay fast.
"""

from importlib import import_module
from typing import Any

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
        "PoissonSampledEvent",
        "SelectedEvent",
        "TruncatedPoissonEvent",
    ),
    "sfumato.privacy.ledger": ("Ledger",),
    "sfumato.report": ("write_report",),
    "sfumato.runs.classifier": ("Classifier",),
    "sfumato.sampling": (
        "CyclicPoisson",
        "FullBatch",
        "Poisson",
        "Sampler",
        "TruncatedPoisson",
        "WithoutReplacement",
    ),
    "sfumato.solve.fc": ("FeatureCovariance",),
    "sfumato.train.dpsgd": ("DPSGD",),
    "sfumato.train.feed": ("physical_batches",),
    "sfumato.train.loop": ("run",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
_ROOMS = ("data", "weights")
__all__ = [*_ROOMS, *sorted(_HOME_OF)]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"sfumato.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'sfumato' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
