"""Learning rates over the steps of DP-SGD, and weight decay. What is done to a released sum is
post-processing, so both are free.

With T steps, of which the first w warm up, step t = 0, 1, ... has the rate r times

    min(1, (t + 1) / w) * shape((t - w) / (T - w)),    shape(x) = 1 | 1 - x | (1 + cos(pi x)) / 2

for constant, linear and cosine (Loshchilov & Hutter 2017); x is 0 while warming up, which may be all of the run. No step has the rate 0,
neither the first nor the last, as each was paid for.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optax

SHAPES: dict[str, Callable[[Any], Any]] = {}
"""--schedule -> shape above, of arrays of JAX."""


def _shape(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    SHAPES[function.__name__] = function
    return function


@_shape
def constant(x: Any) -> Any:
    return 1.0


@_shape
def linear(x: Any) -> Any:
    return 1 - x


@_shape
def cosine(x: Any) -> Any:
    import jax.numpy as jnp

    return (1 + jnp.cos(math.pi * x)) / 2


def rate_of(name: str, rate: float, warmup: float, steps: int) -> "float | Callable[[Any], Any]":
    """The learning rate, or step -> it. warmup: share of the steps."""
    warm = round(warmup * steps)
    if name == "constant" and not warm:
        return rate

    def at(step: Any) -> Any:
        import jax.numpy as jnp

        rising = jnp.minimum(1.0, (step + 1) / max(warm, 1))
        return rate * rising * SHAPES[name](jnp.maximum(step - warm, 0) / max(steps - warm, 1))

    return at


def decayed(
    optimizer: "optax.GradientTransformation",
    rate: "float | Callable[[Any], Any]",
    weight_decay: float,
) -> "optax.GradientTransformation":
    """With decoupled weight decay (Loshchilov & Hutter 2019, eq. 9): each step also takes rate *
    weight_decay of kernels and matrices away, not of biases and norms, whatever the optimizer."""
    if not weight_decay:
        return optimizer
    import jax
    import optax

    decay = optax.chain(
        optax.masked(
            optax.add_decayed_weights(weight_decay),
            lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
        ),
        optax.scale_by_learning_rate(rate),
    )

    def init(params: Any) -> Any:
        return optimizer.init(params), decay.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        own, first = optimizer.update(updates, state[0], params)
        nothing = jax.tree.map(lambda leaf: 0 * leaf, own)
        less, second = decay.update(nothing, state[1], params)
        return jax.tree.map(lambda one, two: one + two, own, less), (first, second)

    return optax.GradientTransformation(init, update)
