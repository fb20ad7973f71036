"""Every sampler draws from the law that its event states: all subsets of a few examples, and pairs
of them.

The law is written down from the EVENT, which is what the accountant prices, not from the sampler.
"""

import math
import tracemalloc
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
from chance import UNLIKELY, as_likely
from jaxtyping import TypeCheckError
from pace import paced
from scipy import stats

from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.privacy import events
from sfumato.privacy.events import (
    CyclicPoissonEvent,
    FixedSizeEvent,
    GaussianEvent,
    PoissonSampledEvent,
    TruncatedPoissonEvent,
)
from sfumato.sampling import (
    CyclicPoisson,
    FullBatch,
    Poisson,
    Sampler,
    TruncatedPoisson,
    WithoutReplacement,
)

KEY = SecretKey.from_insecure_seed(13)
G = GaussianEvent(2.0)
DRAWS = 6000
REFUSED = (ArgumentError, TypeCheckError)

REGISTRY = {
    "poisson": lambda n, steps: Poisson(0.35, steps, n),
    "truncated poisson": lambda n, steps: TruncatedPoisson(0.45, steps, n, n // 2),
    "truncated poisson, never": lambda n, steps: TruncatedPoisson(0.45, steps, n, n),
    "cyclic poisson": lambda n, steps: CyclicPoisson(0.35, steps, n, 2),
    "fixed size": lambda n, steps: WithoutReplacement(n // 2, steps, n),
    "full batch": lambda n, steps: FullBatch(steps, n),
}


def probability(event, n, subset):
    """Of drawing exactly `subset` (a tuple of 0 and 1), by the words in the event's docstring."""
    size = sum(subset)
    match event:
        case GaussianEvent():
            return float(size == n)
        case PoissonSampledEvent(rate):
            return rate**size * (1 - rate) ** (n - size)
        case TruncatedPoissonEvent(rate, total, maximum):
            assert total == n
            if size == maximum:
                return stats.binom.sf(maximum - 1, n, rate) / math.comb(n, maximum)
            return rate**size * (1 - rate) ** (n - size) if size < maximum else 0.0
        case CyclicPoissonEvent(rate, cycle, phase):
            if any(member for i, member in enumerate(subset) if i % cycle != phase):
                return 0.0
            group = len(range(phase, n, cycle))
            return rate**size * (1 - rate) ** (group - size)
        case FixedSizeEvent(most, total):
            assert total == n
            return (size == most) / math.comb(n, most)
    raise AssertionError(event)


def drawn(sampler, step):
    chosen = sampler.indices(KEY, step)
    assert np.array_equal(chosen, np.unique(chosen)), "not ascending, or drawn twice"
    member = np.zeros(sampler.n, int)
    member[chosen] = 1
    return tuple(member)


def check_law(sampler, event_of=None, first=0, stride=1):
    """Steps first, first + stride, ... are draws from the law of their event, and neighboring ones
    are independent."""
    event_of = event_of or (lambda step: sampler.event(G, step))
    steps = [first + stride * k for k in range(DRAWS)]
    outcomes = [drawn(sampler, step) for step in steps]
    subsets = list(product((0, 1), repeat=sampler.n))
    law = np.array([probability(event_of(first), sampler.n, subset) for subset in subsets])
    assert abs(law.sum() - 1) < 1e-9
    number = {subset: k for k, subset in enumerate(subsets)}
    codes = np.array([number[outcome] for outcome in outcomes])
    compare(np.bincount(codes, minlength=len(law)), law)
    if sampler.n <= 4:
        pairs = codes[0::2] * len(law) + codes[1::2]
        compare(np.bincount(pairs, minlength=len(law) ** 2), np.outer(law, law).ravel())


def compare(observed, law):
    assert not observed[law == 0].any(), "drew what the event excludes"
    assert as_likely(observed, law) > UNLIKELY, "another law than the event's"


@pytest.mark.parametrize("n", paced([4, 6], 4))
@pytest.mark.parametrize("name", REGISTRY)
def test_batches_follow_the_law_of_their_event(name, n):
    """False alarms: 3e-9: two comparisons of each."""
    sampler = REGISTRY[name](n, 10**6)
    assert isinstance(sampler, Sampler)
    if name == "cyclic poisson":
        for phase in (0, 1):
            check_law(sampler, first=phase, stride=2)
    else:
        check_law(sampler)


@dataclass(frozen=True)
class KeepsTheFirst(TruncatedPoisson):
    """Negative control: what is too much is cut off at the end of the list."""

    def indices(self, key, step):
        return Poisson(self.rate, self.steps, self.n).indices(key, step)[: self.maximum]


@dataclass(frozen=True)
class TakesTurns(Poisson):
    """Negative control: binomial sizes from one shuffled order."""

    def indices(self, key, step):
        size = len(super().indices(key, step))
        order = key.stream("epoch", step // 2).permutation(self.n)
        return np.sort((order if step % 2 else order[::-1])[:size])


@dataclass(frozen=True)
class Repeats(WithoutReplacement):
    """Negative control: every batch serves twice."""

    def indices(self, key, step):
        return super().indices(key, step // 2)


MISTAKEN = [
    (WithoutReplacement(2, 9, 4), PoissonSampledEvent(0.5, G)),
    (Poisson(0.5, 9, 4), FixedSizeEvent(2, 4, G)),
    (TruncatedPoisson(0.45, 9, 4, 2), PoissonSampledEvent(0.45, G)),
    (Poisson(0.35, 9, 4), PoissonSampledEvent(0.31, G)),
    (KeepsTheFirst(0.45, 9, 4, 2), TruncatedPoissonEvent(0.45, 4, 2, G)),
    (TakesTurns(0.35, 9, 4), PoissonSampledEvent(0.35, G)),
    (Repeats(2, 9, 4), FixedSizeEvent(2, 4, G)),
    (CyclicPoisson(0.35, 9, 4, 2), PoissonSampledEvent(0.35, G)),
]


@pytest.mark.parametrize(
    "sampler, event", paced(MISTAKEN, *MISTAKEN[3:6]), ids=lambda each: type(each).__name__
)
def test_control_another_law_is_noticed(sampler, event):
    """False alarms: 1e-9: the smallest distance of two laws, 0.0146 in relative entropy, is 88 in
    6,000 draws."""
    with pytest.raises(AssertionError):
        check_law(sampler, lambda step: event)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_batch_is_a_function_of_key_and_step_alone(name):
    sampler, again = REGISTRY[name](40, 100), REGISTRY[name](40, 100)
    forward = [sampler.indices(KEY, step) for step in range(30)]
    for step in (29, 3, 17, 0):
        np.random.seed(step)
        assert np.array_equal(again.indices(KEY, step), forward[step])
        assert sampler.event(G, step) == again.event(G, step)
    if name != "full batch":
        assert len({tuple(batch) for batch in forward}) > 25
        assert not np.array_equal(sampler.indices(SecretKey.from_insecure_seed(4), 0), forward[0])
    assert np.array_equal(sampler.indices(KEY, 10**12), again.indices(KEY, 10**12)), (
        "random access, far away"
    )


@pytest.mark.parametrize(
    "name, sampler",
    [
        ("poisson", Poisson(1e-5, 10**6, 10**9)),
        ("truncated", TruncatedPoisson(1e-5, 10**6, 10**9, 10_000)),
        ("cyclic", CyclicPoisson(1e-3, 10**6, 10**9, 100)),
        ("fixed", WithoutReplacement(10_000, 10**6, 10**9)),
    ],
)
def test_a_billion_examples_are_quick(name, sampler):
    """False alarms: 1e-8: a size 7 deviations off, no index in a 500th of all."""
    tracemalloc.start()
    batch = sampler.indices(KEY, 999_999)
    assert tracemalloc.get_traced_memory()[1] < 10**7, "it looked at everybody"
    tracemalloc.stop()
    assert abs(len(batch) - 10_000) < 700
    assert 0 <= batch.min() < 2 * 10**6 and 10**9 - 2 * 10**6 < batch.max() < 10**9


@pytest.mark.parametrize("name", REGISTRY)
def test_the_divisor_is_the_public_mean_and_events_survive_the_ledger(name):
    """False alarms: 1e-9: a mean of 2,000 sizes of deviation 1.2 at most is off by 8 of its own
    deviations."""
    sampler = REGISTRY[name](6, 100)
    event = sampler.event(G, 1)
    assert events.from_json(events.to_json(event)) == event
    if (
        "truncated" not in name
    ):  # divided by the size before truncation: a public constant all the same
        sizes = [len(sampler.indices(KEY, step)) for step in range(2000)]
        assert np.mean(sizes) == pytest.approx(sampler.expected_batch_size, abs=0.22)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: TruncatedPoisson(0.1, 1, 10, 0),
        lambda: CyclicPoisson(0.1, 1, 10, 0),
        lambda: CyclicPoisson(0.1, 1, 10, 11),
        lambda: WithoutReplacement(11, 1, 10),
        lambda: WithoutReplacement(0, 1, 10),
        lambda: CyclicPoissonEvent(0.1, 4, 4, G),
        lambda: FixedSizeEvent(5, 4, G),
        lambda: TruncatedPoissonEvent(0.0, 4, 4, G),
    ],
)
def test_what_is_no_sampler_is_refused(wrong):
    with pytest.raises(REFUSED):
        wrong()
