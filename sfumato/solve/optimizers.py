"""Optimizers by name: what `--optimizer` of dp-sgd and the first-order heads take. Importing this
module does not import optax."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Optimizer:
    """make: (learning rate or step -> it, momentum) -> an optax transformation. copies: arrays as large as the
    parameters that its state holds. rate: a customary learning rate, where steps do not depend on
    the scale of the gradient; None where they are in proportion to it.
    """

    make: Callable[[Any, float], Any]
    copies: int
    rate: float | None = None


def _sgd(rate: Any, momentum: float) -> Any:
    import optax

    return optax.sgd(rate, momentum or None)


def _adam(rate: Any, momentum: float) -> Any:
    import optax

    return optax.adam(rate, b1=momentum)


def _lamb(rate: Any, momentum: float) -> Any:
    import optax

    return optax.lamb(rate, b1=momentum)


OPTIMIZERS = {
    "sgd": Optimizer(_sgd, 0),
    "momentum": Optimizer(_sgd, 1),
    "adam": Optimizer(_adam, 2, 1e-3),
    "lamb": Optimizer(_lamb, 2, 1e-2),
}
