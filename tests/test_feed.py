"""The feed: what is read ahead is what the sampler drew, each once, in order, by one thread, and a
failure is that of its own step."""

import threading
import weakref

import numpy as np
import optax
import pytest

from sfumato.core.errors import LedgerError
from sfumato.core.keys import SecretKey
from sfumato.data import ahead as reading
from sfumato.data.ahead import ahead
from sfumato.data.source import Source, from_arrays
from sfumato.noise import Gaussian
from sfumato.privacy.ledger import Ledger
from sfumato.sampling import FullBatch, Poisson
from sfumato.train import loop
from sfumato.train.dpsgd import DPSGD
from sfumato.train.evaluation import CURVE_IMAGES, confusion, for_curve
from sfumato.train.feed import Feed
from sfumato.train.replay_guard import ReplayGuard

N, STEPS = 40, 5
KEY = SecretKey.from_insecure_seed(1)
ROWS = np.random.default_rng(0).standard_normal((N, 3)).astype(np.float32)


class Reading:
    """`Fetch` that keeps account of its calls, and fails in some step."""

    def __init__(self, fails=None):
        self.calls, self.threads, self.fails = [], set(), fails

    def __call__(self, indices, step):
        self.calls.append((step, indices.copy()))
        self.threads.add(threading.get_ident())
        if step == self.fails:
            raise OSError(f"image 7 of step {step} is unreadable")
        return ROWS[indices]


def threads():
    return [each for each in threading.enumerate() if "sfumato-reader" in each.name]


def trainer(fetch, sampler=None):
    return DPSGD(
        lambda w, row: (row @ w) ** 2,
        np.zeros(3, np.float32),
        fetch=fetch,
        sampler=sampler or Poisson(0.4, STEPS, N),
        optimizer=optax.sgd(0.1),
        noise=Gaussian(4.0),
        physical_batch_size=7,
    )


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "run", delta=1e-3, epsilon_max=50.0) as book:
        yield book


def test_every_step_gets_what_its_sampler_draws_each_once():
    fetch, sampler = Reading(), Poisson(0.4, STEPS, N)
    feed = Feed(lambda at, step: (fetch(at, step), at), sampler, 7)
    for step in range(STEPS):
        parts = [(np.asarray(at), np.asarray(mask)) for (_, at), mask in feed.step(KEY, step)]
        assert all(len(mask) == 7 for _, mask in parts)
        fed = np.concatenate([at[mask] for at, mask in parts])
        assert np.array_equal(fed, sampler.indices(KEY, step))
    assert [step for step, _ in fetch.calls] == sorted(step for step, _ in fetch.calls)
    assert len(fetch.threads) == 1 and threading.get_ident() not in fetch.threads
    assert not threads()


def test_the_next_step_is_read_while_this_one_is_computed():
    fetch = Reading()
    feed = Feed(fetch, FullBatch(STEPS, N), 7)
    read = threading.Event()
    feed._fetch = lambda at, step: (read.set() if step == 1 else None, fetch(at, step))[1]
    parts = feed.step(KEY, 0)
    for _ in range(-(-N // 7)):
        next(parts)
    assert read.wait(20), "nothing of step 1 was read before step 0 was done"
    assert max(step for step, _ in fetch.calls) <= 2, "two steps ahead at most"
    feed.stop()
    assert not threads()


def test_no_more_is_read_ahead_than_bytes_or_items_allow(monkeypatch):
    monkeypatch.setattr(reading, "BYTES", 4 * 80)
    for most, expected in ((None, 4), (3, 3), (1, 2)):
        read = []

        def items(read=read):
            for k in range(50):
                read.append(k)
                yield np.zeros(10)

        taken = ahead(items(), most=most)
        for _ in range(3):
            next(taken)
        taken.close()  # what is being read ends first
        assert len(read) <= 3 + expected + 1
    assert not threads()


def test_an_unreadable_image_is_an_error_of_its_own_step_and_nothing_is_paid_twice(
    ledger, tmp_path
):
    fetch = Reading(fails=3)
    with pytest.raises(OSError, match="step 3"):
        loop.run(trainer(fetch), ledger, KEY, replay_guard=ReplayGuard(tmp_path / "sums"))
    assert ledger.releases == 4, "paid before it is measured, and no later step"
    assert not threads()
    state = loop.run(trainer(Reading()), ledger, KEY, replay_guard=ReplayGuard(tmp_path / "sums"))
    assert ledger.releases == STEPS
    with Ledger.create(tmp_path / "other", delta=1e-3, epsilon_max=50.0) as book:
        whole = loop.run(trainer(Reading()), book, KEY)
    assert np.array_equal(state["params"], whole["params"])


@pytest.mark.parametrize("what", [KeyboardInterrupt, LedgerError])
def test_a_run_that_is_stopped_leaves_no_thread(ledger, what):
    def stop(done, state):
        raise what("stopped")

    procedure = trainer(Reading())
    with pytest.raises(what):
        loop.run(procedure, ledger, KEY, after_step=stop)
    assert not threads()
    assert procedure.measure(procedure.start(), 0, KEY).value.shape == (3,), (
        "and can be asked again"
    )
    procedure.stop()
    assert not threads()


def test_a_trainer_that_is_forgotten_ends_its_thread():
    procedure = trainer(Reading())
    procedure.measure(procedure.start(), 0, KEY)
    assert threads()
    gone = weakref.ref(procedure._feed)
    procedure.stop()
    del procedure
    assert not threads() and gone is not None


def test_any_step_may_be_asked_for_again_or_out_of_turn():
    fetch = Reading()
    procedure, state = trainer(fetch), trainer(fetch).start()
    state = {**state, "params": state["params"] + 1}
    first = [np.asarray(procedure.measure(state, step, KEY).value) for step in range(STEPS)]
    for step in (3, 0, 0, 4, 1, 2):
        assert np.array_equal(procedure.measure(state, step, KEY).value, first[step])
    other = procedure.measure(state, 3, SecretKey.from_insecure_seed(2)).value
    assert not np.array_equal(other, first[3]), "another key, another batch"
    procedure.stop()
    assert len(fetch.threads) >= 1 and not threads()


def test_an_evaluation_reads_in_order_and_counts_everybody_once():
    images = np.random.default_rng(0).integers(0, 256, (1300, 2, 2, 1), np.uint8)
    labels = (images[:, 0, 0, 0] > 127).astype(np.int32)
    source, seen = from_arrays(images, labels), []

    def predict(part):
        seen.append(len(part))
        assert part.dtype == np.uint8
        return np.stack([part[:, 0, 0, 0] <= 127, part[:, 0, 0, 0] > 127], 1).astype(np.float32)

    counts = confusion(predict, source)
    assert np.trace(counts) == counts.sum() == 1300 and seen == [512, 512, 276]
    broken = Source("s", "test", labels, ("0", "1"), (2, 2, 1), lambda at: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        confusion(predict, broken)
    assert not threads()


def test_a_curve_looks_at_the_same_few_images_every_time():
    source = from_arrays(np.zeros((3000, 1, 1, 1), np.uint8), np.arange(3000) % 7)
    one, other = for_curve(source), for_curve(source)
    assert len(one) == CURVE_IMAGES and np.array_equal(one.labels, other.labels)
    assert not np.array_equal(one.labels, source.labels[:CURVE_IMAGES])
    few = source.subset(np.arange(100), "test")
    assert for_curve(few) is few
