"""Where Rényi divergences are all that is known of an event, the search through their orders ends
early, with the epsilon of all orders."""

import pytest

from sfumato.privacy import relations
from sfumato.privacy.events import Event, FixedSizeEvent, GaussianEvent, SelectedEvent
from sfumato.privacy.neighbors import REPLACE_ONE, ZERO_OUT

ORDERS = [*(1 + k / 4 for k in range(1, 20)), *range(6, 40), 64, 96]
SMALL = FixedSizeEvent(3, 100, GaussianEvent(1.5))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Orders are few and low, as high ones take long; the list of those that were looked at."""
    seen: list[float] = []
    whole = relations._divergences.__wrapped__

    def looked_at(event: Event, relation: str, orders: tuple[float, ...]) -> object:
        seen.extend(orders)
        return whole(event, relation, orders)

    monkeypatch.setattr(relations, "_ORDERS", ORDERS)
    monkeypatch.setattr(relations, "_divergences", looked_at)
    return seen


def price(event: Event, count: int, delta: float) -> float:
    return relations._renyi_epsilon.__wrapped__(0.0, ((event, count),), delta, ZERO_OUT)


@pytest.mark.parametrize(
    ("event", "count", "delta", "stops"),
    [
        (FixedSizeEvent(1, 4, GaussianEvent(4.0)), 4, 0.03, True),
        (FixedSizeEvent(10, 20, GaussianEvent(0.6)), 1, 1e-5, True),
        (SMALL, 2000, 1e-5, True),
        (SMALL, 1, 0.9, True),  # an epsilon of zero
        (FixedSizeEvent(1, 10**6, GaussianEvent(9.0)), 1, 1e-9, False),  # the highest is the best
    ],
)
def test_the_search_ends_early_with_the_epsilon_of_all_orders(
    asked: list[float], event: Event, count: int, delta: float, stops: bool
) -> None:
    from dp_accounting import rdp

    found = price(event, count, delta)
    assert (len(asked) < len(ORDERS)) == stops and asked == ORDERS[: len(asked)]
    every = relations._divergences(event, REPLACE_ONE, tuple(ORDERS))
    every = count * (every + relations._rounding(event, ORDERS))
    assert found == rdp.compute_epsilon(ORDERS, every, delta)[0]


def test_a_choice_of_the_best_is_bounded_by_all_orders_at_once(asked: list[float]) -> None:
    price(SelectedEvent(GaussianEvent(3.0), 4.0), 1, 1e-5)
    assert asked == ORDERS
