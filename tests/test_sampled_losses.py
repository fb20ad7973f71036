"""Privacy losses of a Poisson-sampled Gaussian, inverted for all points of a grid at once, are the
library's own, point by point."""

import numpy as np
import pytest
from dp_accounting import NeighboringRelation
from dp_accounting.pld import privacy_loss_distribution as library

from sfumato.privacy.sampled_losses import sampled_gaussian

ADD_OR_REMOVE = NeighboringRelation.ADD_OR_REMOVE_ONE


def both(rate: float, sigma: float, spacing: float, relation: NeighboringRelation) -> list[object]:
    return [
        library.from_gaussian_mechanism(
            sigma,
            sampling_prob=rate,
            value_discretization_interval=spacing,
            neighboring_relation=relation,
        ),
        sampled_gaussian(sigma, rate, relation, spacing),
    ]


@pytest.mark.parametrize(
    ("rate", "sigma", "relation"),
    [
        (0.01, 1.0, ADD_OR_REMOVE),
        (0.3, 0.6, NeighboringRelation.REPLACE_SPECIAL),
        (0.999, 2.0, ADD_OR_REMOVE),
        (1e-7, 4.0, ADD_OR_REMOVE),
        (1.0, 2.0, ADD_OR_REMOVE),
        (0.3, 1.0, NeighboringRelation.REPLACE_ONE),
    ],
)
def test_it_is_the_librarys_own_distribution(
    rate: float, sigma: float, relation: NeighboringRelation
) -> None:
    wanted, found = both(rate, sigma, 1e-2 * min(1, rate) / sigma, relation)
    assert found._symmetric == wanted._symmetric
    for name in ("_pmf_remove", "_pmf_add"):
        one, other = (getattr(each, name).to_dense_pmf() for each in (wanted, found))
        assert (other._lower_loss, other.size) == (one._lower_loss, one.size)
        assert other._infinity_mass == pytest.approx(one._infinity_mass, rel=1e-9)
        np.testing.assert_allclose(other._probs, one._probs, rtol=1e-9, atol=1e-15)


def test_a_grid_point_at_the_smallest_loss_is_refused_as_by_the_library() -> None:
    """The caller takes another spacing then (`privacy/losses.py`)."""
    rate, sigma, spacing = 1e-9, 5.0, 2e-10
    with pytest.raises(ValueError):
        library.from_gaussian_mechanism(
            sigma, sampling_prob=rate, value_discretization_interval=spacing
        )
    with pytest.raises(ValueError, match="smallest loss"):
        sampled_gaussian(sigma, rate, ADD_OR_REMOVE, spacing)
