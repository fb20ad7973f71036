"""The library's privacy loss distribution of a Poisson-sampled Gaussian, in a fifth of the time.

The library inverts the loss one grid point after the other, in Python, and a calibration has
hundreds of thousands of them. Here the same formulas take all points at once; everything else of
the distribution, its grid and how it is rounded are the library's own.
"""

import math
from functools import cache
from typing import Any


def sampled_gaussian(sigma: float, rate: float, neighbors: Any, spacing: float) -> Any:
    """What the library's `from_gaussian_mechanism` gives for noise `sigma`, sensitivity 1 and
    sampling probability `rate`. Raises ValueError where that does: a grid point at the smallest
    loss that there is."""
    import dp_accounting as library
    from dp_accounting.pld import pld_pmf
    from dp_accounting.pld import privacy_loss_distribution as pld
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType

    if rate == 1 or neighbors == library.NeighboringRelation.REPLACE_ONE:
        return pld.from_gaussian_mechanism(
            sigma,
            sampling_prob=rate,
            value_discretization_interval=spacing,
            neighboring_relation=neighbors,
        )
    found = []
    for direction in (AdjacencyType.REMOVE, AdjacencyType.ADD):
        loss = _at_once()(sigma, sampling_prob=rate, adjacency_type=direction)
        bounds = loss.connect_dots_bounds()
        low, high = (
            math.floor(bounds.epsilon_lower / spacing),
            math.ceil(bounds.epsilon_upper / spacing),
        )
        deltas = loss.on_grid(low, high, spacing)
        found.append(
            pld_pmf.create_pmf_pessimistic_connect_dots_fixed_gap(spacing, low, high, deltas)
        )
    return pld.PrivacyLossDistribution(*found)


@cache
def _at_once() -> Any:
    """The library's class of this loss, with deltas of a whole grid."""
    import numpy as np
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

    class SampledLoss(GaussianPrivacyLoss):
        def on_grid(self, low: int, high: int, spacing: float) -> Any:
            """delta at each epsilon = k * spacing, k = low .. high.

            With q the sampling probability, the loss L of the sampled release is l, the loss without
            sampling, where exp(l) = 1 + (exp(L) - 1) / q; in the other direction -L and -l are. It
            ends at L = log(1 - q), where l is -infinity.
            """
            q, removed = self.sampling_prob, self.adjacency_type == AdjacencyType.REMOVE
            epsilons = np.arange(low, high + 1) * spacing
            within = epsilons > math.log1p(-q) if removed else epsilons < -math.log1p(-q)
            deltas = np.where(within, 0.0, -np.expm1(np.minimum(epsilons, 0)) if removed else 0.0)
            epsilons, end = epsilons[within], math.log(1 - q)
            signed = epsilons if removed else -epsilons
            scaled, less = signed + np.log(1 / q), np.log(1 / q - 1)
            at_end = np.abs(signed - end) <= 1e-9 * np.maximum(np.abs(signed), abs(end))
            if ((signed <= end) | (less >= scaled))[~at_end].any():
                raise ValueError("a grid point is within rounding of the smallest loss")
            with np.errstate(all="ignore"):
                plain = scaled + np.log1p(-np.exp(less - scaled))
            plain[signed == 0] = np.log(1 / q + (1 - 1 / q))
            plain[at_end] = -np.inf
            x = (
                self._inverse_privacy_loss_without_subsampling_remove(plain)
                if removed
                else self._inverse_privacy_loss_without_subsampling_add(-plain)
            )
            deltas[within] = self.mu_upper_cdf(x) - np.exp(epsilons + self.mu_lower_log_cdf(x))
            return np.clip(deltas, 0, 1)

    return SampledLoss
