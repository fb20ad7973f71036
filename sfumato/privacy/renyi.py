"""The accountant of the papers of 2022, Rényi differential privacy (Mironov 2017), at the library's
own orders: for comparison with published numbers only. What this house promises is computed in
`accountants.py`.
"""

from scipy.optimize import brentq

from sfumato.core.errors import ArgumentError
from sfumato.privacy.events import Tally
from sfumato.privacy.neighbors import ADD_OR_REMOVE
from sfumato.privacy.relations import without_warnings
from sfumato.privacy.releases import Release


def epsilon(events: Tally, delta: float) -> float:
    """Epsilon of Gaussian and Poisson-sampled Gaussian events. Raises ArgumentError for others."""
    from dp_accounting import rdp

    accountant = rdp.RdpAccountant()
    for event, count in events.items():
        if not event.in_papers:
            raise ArgumentError("event", event, "the papers' accountant is for Gaussian releases")
        with without_warnings():
            accountant.compose(event.renyi_event(ADD_OR_REMOVE), count)
    return float(accountant.get_epsilon(delta))


def noise_multiplier(release: Release, target_epsilon: float, delta: float) -> float:
    """The noise multiplier that this accountant would ask for, to 1e-4; its search begins at the
    release's own."""

    def excess(sigma: float) -> float:
        return epsilon(release.with_noise(sigma).tally, delta) - target_epsilon

    return float(
        brentq(excess, release.noise_multiplier * 0.9, release.noise_multiplier * 2, xtol=1e-4)
    )
