"""The ways to learn, each a class of settings: what a user may set, its part of the plan, its rule for
what was left open, its releases. Importing this module imports neither JAX nor NumPy.

A new linear method is a class in `solve/linear_settings.py` and its stages in `solve/linear.py`.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from sfumato.core.errors import ArgumentError
from sfumato.core.settings import flags_of
from sfumato.solve.covariance_settings import CovarianceSettings
from sfumato.solve.linear_settings import HEADS
from sfumato.solve.method_settings import MethodSettings
from sfumato.train.sgd_settings import SGDSettings

_ALL: tuple[type[MethodSettings], ...] = (SGDSettings, CovarianceSettings, *HEADS.values())
METHODS: dict[str, type[MethodSettings]] = {each.method: each for each in _ALL}
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
