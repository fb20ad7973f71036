"""The privacy loss of one sampled Gaussian release, roughly: to choose a grid for it
(`losses.py`), not to price it."""

from typing import Any

REACH = 10.0
"""Deviations of the noise that the library looks at: it leaves out e^-50 of it."""


def sampled(rate: float, sigma: float, replaced: bool) -> tuple[Any, Any]:
    """(losses, weights), both of shape (2 directions, points): the sum is 0 + noise, or 1 + noise
    with probability `rate`. replaced: against -1 + noise with that probability, else against 0.
    """
    import numpy as np

    points = np.linspace(-REACH, REACH, 201)
    bell = np.exp(-(points**2) / 2)
    bell /= bell.sum()
    with np.errstate(divide="ignore"):
        out, into = np.log1p(-rate), np.log(rate)
    x = sigma * np.concatenate([points, points + 1 / sigma])

    def loss(at: Any, other: float) -> Any:
        """log of the density with the example at `other`, or without it, over that without it."""
        return np.logaddexp(out, into + (2 * other * at - other**2) / (2 * sigma**2))

    present = np.concatenate([(1 - rate) * bell, rate * bell])
    if replaced:
        gap = loss(x, 1.0) - loss(x, -1.0)
        return np.stack([gap, gap]), np.stack([present, present])
    return np.stack([loss(x, 1.0), -loss(x, 1.0)]), np.stack(
        [present, np.concatenate([bell, 0 * bell])]
    )


def joined(one: tuple[Any, Any], other: tuple[Any, Any], share: float) -> tuple[Any, Any]:
    """`other` happens with probability `share`, `one` otherwise."""
    import numpy as np

    return np.concatenate([one[0], other[0]], 1), np.concatenate(
        [(1 - share) * one[1], share * other[1]], 1
    )
