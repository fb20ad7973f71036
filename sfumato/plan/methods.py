"""The ways to learn, each a class of settings: what a user may set, its part of the plan, its rule for
what was left open, its releases. Importing this module imports neither JAX nor NumPy.

A new linear method is a class in `solve/linear_settings.py` and its stages in `solve/linear.py`.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, runtime_checkable

from sfumato.core.errors import ArgumentError
from sfumato.core.settings import flags_of
from sfumato.core.tasks import Task
from sfumato.privacy.events import Event
from sfumato.privacy.releases import Release
from sfumato.privacy.terms import Budget
from sfumato.solve.covariance_settings import CovarianceSettings
from sfumato.solve.linear_settings import HEADS
from sfumato.train.sgd_settings import SGDSettings


@runtime_checkable
class Settings(Protocol):
    """The part of a plan that is its method's own.

    method: its name. what: it, in words for `--help`. needs: what it learns on, "rows" of features,
    features in "groups", or a "network" (or features). clip_norm: of a gradient. steps: of the
    sampler.
    """

    method: ClassVar[str]
    what: ClassVar[str]
    needs: ClassVar[str]

    @property
    def steps(self) -> int: ...
    @property
    def clip_norm(self) -> float: ...
    @classmethod
    def default_model(cls, n: int, shape: tuple[int, int, int]) -> str:
        """What n images of that shape are learnt with where the user named no model."""
        ...

    @classmethod
    def ruled(cls, budget: Budget) -> "Settings":
        """The settings where the user left all open: a function of public facts."""
        ...

    def given(self, asked: dict[str, Any], n: int) -> "Settings":
        """With what the user asked for, flag -> value."""
        ...

    def check_task(self, task: Task) -> None:
        """Raise ArgumentError for settings that do not suit such labels."""
        ...

    def batch_of(self, n: int) -> int:
        """The expected batch of n examples, whom the sampler draws from."""
        ...

    def paid(self, budget: Budget, sampled: Callable[[float], Event]) -> tuple[Release, ...]:
        """The releases that cost the budget together. sampled: noise multiplier -> the first event
        of a gradient step, by the run's sampler and mechanism."""
        ...

    def matrices(self, classes: int) -> int:
        """How many matrices of d x d numbers are held, for d features."""
        ...


_ALL: tuple[type[Settings], ...] = (SGDSettings, CovarianceSettings, *HEADS.values())
METHODS: dict[str, type[Settings]] = {each.method: each for each in _ALL}
ROWS = tuple(name for name, each in METHODS.items() if each.needs == "rows")

if TYPE_CHECKING:
    MethodName = RowsMethodName = str
else:
    MethodName = Literal[("auto", *METHODS)]
    RowsMethodName = Literal[("auto", *ROWS)]


def owners(flag: str) -> list[str]:
    """The methods that have a flag."""
    return [name for name, each in METHODS.items() if flag in flags_of(each)]


def all_flags() -> list[str]:
    """Of all methods."""
    return list(dict.fromkeys(flag for each in METHODS.values() for flag in flags_of(each)))


def asked(config: Any) -> dict[str, Any]:
    """Flags of methods that were given, with their values."""
    given = {name: getattr(config, name) for name in all_flags()}
    return {
        name: value for name, value in given.items() if value is not None and value is not False
    }


def refuse_foreign(config: Any, method: str) -> None:
    """Raise ArgumentError for a flag that was given and that `method` does not have."""
    for name, value in asked(config).items():
        if name not in flags_of(METHODS[method]):
            raise ArgumentError(
                name,
                value if isinstance(value, int | float | str) else str(value),
                f"method {method} has no such setting; leave it out, or choose another --method: "
                f"{', '.join(owners(name))}",
            )


def table(names: Iterable[str] = tuple(METHODS), flagged: bool = True) -> str:
    """For `--help`: what each method is and, if asked for, its flags."""
    lines = []
    for name in names:
        flags = " ".join(f"--{flag.replace('_', '-')}" for flag in flags_of(METHODS[name]))
        lines.append(f"{name}: {METHODS[name].what}." + f" {flags or 'No flags.'}" * flagged)
    return "\n\n".join(lines)
