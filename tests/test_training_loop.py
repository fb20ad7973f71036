"""DP-SGD and the loop: one compilation, the same result for any physical batch, resumed bit by bit,
checkpoints whole."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sfumato.clip import clipped_grad
from sfumato.core import files
from sfumato.core.errors import LedgerError, RunError
from sfumato.core.keys import SecretKey
from sfumato.noise import Gaussian
from sfumato.privacy.ledger import Ledger
from sfumato.sampling import FullBatch, Poisson
from sfumato.train import checkpoint, loop
from sfumato.train.dpsgd import DPSGD
from sfumato.train.feed import physical_batches
from sfumato.train.replay_guard import ReplayGuard

KEY = SecretKey.from_insecure_seed(11)
N, D, C = 60, 5, 3
RNG = np.random.default_rng(0)
ROWS, LABELS = (
    RNG.standard_normal((N, D)).astype(np.float32),
    RNG.integers(0, C, N).astype(np.int32),
)
STEPS = 6
RATE = 0.4


def entropy(params, example):
    row, label = example
    return optax.softmax_cross_entropy_with_integer_labels(row @ params["w"] + params["b"], label)


def dpsgd(rows=ROWS, loss=entropy, **change):
    settings = {
        "params": {"w": np.zeros((D, C), np.float32), "b": np.zeros(C, np.float32)},
        "clipped": clipped_grad(loss, 0.5, normalized=True),
        "sampler": Poisson(RATE, STEPS, N),
        "noise": Gaussian(2.0),
        "optimizer": optax.sgd(1.0, 0.9),
        "fetch": lambda indices, step: (rows[indices], LABELS[indices]),
        "physical_batch_size": 16,
        "ema_decay": 0.99,
    }
    return DPSGD(**{**settings, **change})


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path / "run", delta=1e-3, epsilon_max=50.0) as book:
        yield book


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def equal(one, two):
    return all(np.array_equal(a, b) for a, b in zip(leaves(one), leaves(two), strict=True))


def close(one, two, atol=1e-5):
    return all(np.allclose(a, b, atol=atol) for a, b in zip(leaves(one), leaves(two), strict=True))


# -- one compilation


@pytest.mark.parametrize("rate", [RATE, 0.02, 1.0])
def test_the_gradient_is_traced_and_compiled_once_per_run(ledger, caplog, rate):
    """Whatever sizes the sampler draws, nobody included."""
    traced = []

    def counted(params, example):
        traced.append(1)
        return entropy(params, example)

    procedure = dpsgd(loss=counted, sampler=Poisson(rate, 12, N), noise=Gaussian(20.0))
    sizes = {len(procedure.sampler.indices(KEY, step)) for step in range(12)}
    assert len(sizes) > 1 or rate == 1.0
    with jax.log_compiles(), caplog.at_level("WARNING", logger="jax"):
        loop.run(procedure, ledger, KEY)
    assert sum("Compiling jit(add)" in record.getMessage() for record in caplog.records) == 1
    assert len(traced) == 1
    assert procedure._add._cache_size() == procedure._update._cache_size() == 1


# -- the same for any physical batch


def of_physical_size(size):
    return dpsgd(physical_batch_size=size)


def test_the_size_of_physical_batches_does_not_change_the_sums():
    """But for their last bits, and with these the noise."""
    results = [
        procedure.measure(procedure.start(), 0, KEY).value
        for procedure in map(of_physical_size, (1, 7, 64))
    ]
    assert close(results[0], results[1])
    assert close(results[0], results[2])


def test_physical_batches_hold_every_index_once_and_pad_under_the_mask():
    for count in (0, 1, 5, 6, 13):
        indices = np.arange(count) + 100
        parts = list(
            physical_batches(lambda i, step: {"i": i, "s": np.full(len(i), step)}, indices, 4, 6)
        )
        assert len(parts) == -(-count // 6)
        assert all(mask.shape == (6,) and tree["i"].shape == (6,) for tree, mask in parts)
        kept = [tree["i"][mask] for tree, mask in parts]
        assert np.array_equal(np.concatenate([*kept, []]), indices)


def test_an_unreadable_example_stops_the_step_instead_of_being_left_out():
    def fetch(indices, step):
        if 9 in indices:
            raise OSError("cannot read")
        return indices

    with pytest.raises(OSError, match="cannot read"):
        list(physical_batches(fetch, np.arange(20), 0, 4))


# -- empty batches, denominators, absurd examples


def test_a_batch_of_nobody_releases_pure_noise_of_the_same_scale(ledger):
    procedure = dpsgd(sampler=Poisson(1e-9, 1, N))
    assert len(procedure.sampler.indices(KEY, 0)) == 0
    total = procedure.measure(procedure.start(), 0, KEY)
    assert not any(leaf.any() for leaf in leaves(total.value))
    assert (
        total.sensitivity
        == dpsgd(sampler=FullBatch(1, N)).measure(procedure.start(), 0, KEY).sensitivity
    )
    state = loop.run(procedure, ledger, KEY)
    noise = Gaussian(2.0)(total, KEY.at("dp-sgd/0"))
    np.testing.assert_allclose(state["params"]["w"], -noise["w"] / (1e-9 * N), rtol=1e-5)
    assert ledger.releases == 1, "a step of nobody is a release like any other"


def by_hand(denominator, seals, steps=STEPS, mu=0.99):
    """The algorithm written out with numpy: plain SGD, clipping, noise, average. seals: of the sums
    that noise is bound to."""
    sampler, noise = Poisson(RATE, steps, N), Gaussian(2.0)
    params = {"w": np.zeros((D, C)), "b": np.zeros(C)}
    ema = {name: leaf.copy() for name, leaf in params.items()}
    for step in range(steps):
        indices = sampler.indices(KEY.at("dp-sgd"), step)
        total = {"w": np.zeros((D, C)), "b": np.zeros(C)}
        for row, label in zip(ROWS[indices].astype(float), LABELS[indices], strict=True):
            scores = row @ params["w"] + params["b"]
            error = (
                np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
                - np.eye(C)[label]
            )
            factor = 1 / max(0.5, np.linalg.norm(error) * np.sqrt(row @ row + 1))
            total["w"] += factor * np.outer(row, error)
            total["b"] += factor * error
        for name, leaf in total.items():
            drawn = 2.0 * KEY.stream(
                f"dp-sgd/{step}", "sum", seals[step], "noise", name
            ).standard_normal(leaf.shape)
            params[name] = params[name] - (leaf + drawn) / denominator(indices)
            decay = min(mu, (1 + step) / (10 + step))
            ema[name] = decay * ema[name] + (1 - decay) * params[name]
    assert noise.multiplier == 2.0
    return params, ema


def test_a_run_equals_the_published_algorithm_written_out(ledger):
    state = loop.run(
        dpsgd(optimizer=optax.sgd(1.0)),
        ledger,
        KEY,
        replay_guard=ReplayGuard(ledger.path.with_name("sums")),
    )
    seals = [
        json.loads(line)["sum"] for line in ledger.path.with_name("sums").read_text().splitlines()
    ]
    params, ema = by_hand(lambda indices: RATE * N, seals)
    assert close(state["params"], params, 1e-4)
    assert close(state["ema"], ema, 1e-4)
    assert not close(state["params"], by_hand(lambda indices: len(indices), seals)[0], 1e-3), (
        "control: the realized size"
    )


@pytest.mark.parametrize("mu", [0.0, 0.3, 0.9999])
def test_the_average_warms_up_as_published(mu):
    procedure = dpsgd(ema_decay=mu, optimizer=optax.sgd(1.0))
    state, expected = procedure.start(), np.zeros(C)
    for step in range(15):
        state = procedure.absorb(
            state, step, {"w": jnp.zeros((D, C)), "b": jnp.ones(C) * (step + 1)}
        )
        decay = min(mu, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * np.asarray(state["params"]["b"], float)
        np.testing.assert_allclose(state["ema"]["b"], expected, rtol=1e-5)


def test_examples_of_nan_leave_the_model_finite_and_count_as_nothing(tmp_path):
    spoiled, bad = ROWS.copy(), np.isin(np.arange(N), [1, *range(0, N, 4)])
    spoiled[bad, 2], spoiled[1] = np.nan, np.inf
    plain = clipped_grad(entropy, 0.5, normalized=True)
    without = dpsgd(
        clipped=lambda p, batch, mask: plain(p, batch[0], mask & ~batch[1]),
        fetch=lambda indices, step: ((ROWS[indices], LABELS[indices]), bad[indices]),
    )
    states = []
    for name, procedure in (("spoiled", dpsgd(spoiled)), ("without", without)):
        with Ledger.create(tmp_path / name, delta=1e-3, epsilon_max=50.0) as book:
            states.append(loop.run(procedure, book, KEY))
    assert all(np.isfinite(leaf).all() for leaf in leaves(states[0]))
    assert close(*states)


def test_one_example_moves_one_release_by_at_most_the_sensitivity():
    """The same key on neighboring data sets, through sampler, feed and clipping; their noise is not
    the same."""
    procedure = dpsgd()
    member = int(procedure.sampler.indices(KEY, 0)[0])
    for value in (0.0, 1e3, np.nan):
        rows = ROWS.copy()
        rows[member] = value
        one, two = (p.measure(p.start(), 0, KEY).value for p in (procedure, dpsgd(rows)))
        moved = np.sqrt(
            sum(((a - b) ** 2).sum() for a, b in zip(leaves(one), leaves(two), strict=True))
        )
        assert 0 < moved <= 2 * (1 + 1e-5)  # one removed, another added


# -- resume


def test_a_run_resumed_from_any_checkpoint_ends_in_the_same_bits(tmp_path):
    path = tmp_path / "checkpoint"

    def keep(done, state):
        checkpoint.save(path / str(done), state, {"step": done})

    with Ledger.create(tmp_path / "run", delta=1e-3, epsilon_max=50.0) as book:
        last = loop.run(
            dpsgd(), book, KEY, after_step=keep, replay_guard=ReplayGuard(tmp_path / "sums")
        )
    for done in range(1, STEPS + 1):
        procedure = dpsgd()  # as a new process would build it
        state, facts = checkpoint.load(path / str(done), procedure.start())
        with Ledger.open(tmp_path / "run") as book:
            again = loop.run(
                procedure,
                book,
                KEY,
                state=state,
                first=facts["step"],
                replay_guard=ReplayGuard(tmp_path / "sums"),
            )
            assert book.releases == STEPS, "a replayed step is not charged again"
        assert equal(again, last)
        assert all(a.dtype == b.dtype for a, b in zip(leaves(again), leaves(last), strict=True))


# -- checkpoints

OLD = {"a": jnp.arange(4.0), "b": [jnp.float32(3), jnp.arange(3)]}
NEW = jax.tree.map(lambda leaf: leaf + 1, OLD)


def test_a_checkpoint_round_trips_to_the_bit_and_absence_is_none(tmp_path):
    assert checkpoint.load(tmp_path / "c", OLD) is None
    checkpoint.save(tmp_path / "c", OLD, {"step": 3})
    state, facts = checkpoint.load(tmp_path / "c", NEW)
    assert equal(state, OLD)
    assert facts == {"step": 3}
    assert sorted(os.listdir(tmp_path / "c")) == ["facts.json", "state.safetensors"]
    assert os.listdir(tmp_path) == ["c"]


def killed_at(number, action):
    """Run `action`, and have the process 'killed' just before its number-th change to the file
    system."""
    left = [number]

    class Killed(BaseException):
        pass

    def guarded(real):
        def call(*args, **kwargs):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (Path, "rename"),
            (Path, "mkdir"),
            (os, "replace"),
            (os, "fsync"),
            (files.shutil, "rmtree"),
        ):
            patch.setattr(owner, name, guarded(getattr(owner, name)))
        try:
            action()
        except Killed:
            return True
    return False


def test_a_save_killed_at_any_point_leaves_the_old_or_the_new_checkpoint(tmp_path):
    seen, number = [], 0
    while True:
        path = tmp_path / str(number) / "c"
        checkpoint.save(path, OLD, {"step": 1})
        killed = killed_at(number, lambda path=path: checkpoint.save(path, NEW, {"step": 2}))
        state, facts = checkpoint.load(path, OLD)
        assert equal(state, OLD if facts["step"] == 1 else NEW)
        seen.append(facts["step"])
        checkpoint.save(path, NEW, {"step": 3})  # the next save works from whatever was left behind
        assert checkpoint.load(path, OLD)[1] == {"step": 3}
        assert os.listdir(path.parent) == ["c"]
        if not killed:
            break
        number += 1
    assert number > 6
    assert seen == sorted(seen)
    assert seen[0] == 1
    assert seen[-1] == 2


def test_a_save_killed_twice_still_leaves_a_checkpoint(tmp_path):
    for first in range(12):
        for second in range(12):
            path = tmp_path / f"{first} {second}" / "c"
            checkpoint.save(path, OLD, {"step": 1})
            killed_at(first, lambda path=path: checkpoint.save(path, NEW, {"step": 2}))
            before = checkpoint.load(path, OLD)[1]["step"]
            killed_at(second, lambda path=path: checkpoint.save(path, NEW, {"step": 3}))
            assert checkpoint.load(path, OLD)[1]["step"] in (before, 3)


@pytest.mark.parametrize("name", ["facts.json", "state.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "noise"])
def test_a_damaged_checkpoint_is_refused(tmp_path, name, damage):
    checkpoint.save(tmp_path / "c", OLD, {"step": 3})
    file = tmp_path / "c" / name
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(
            {"empty": b"", "cut": content[: len(content) // 2], "noise": b"\xff" * len(content)}[
                damage
            ]
        )
    with pytest.raises(RunError):
        checkpoint.load(tmp_path / "c", OLD)


@pytest.mark.parametrize(
    "like", [{"a": jnp.zeros(5), "b": [jnp.float32(3), jnp.arange(3)]}, {"other": jnp.zeros(4)}]
)
def test_a_checkpoint_of_other_shapes_or_names_is_refused(tmp_path, like):
    checkpoint.save(tmp_path / "c", OLD, {})
    with pytest.raises(RunError, match="should have shape"):
        checkpoint.load(tmp_path / "c", like)


# -- known holes: strict, so that mending one asks for its mark to be removed


def test_a_checkpoint_whose_facts_were_changed_is_refused(tmp_path):
    """Valid JSON, the old arrays: a wrong number of steps would go on from another place without a
    word."""
    checkpoint.save(tmp_path / "c", OLD, {"step": 3})
    file = tmp_path / "c" / "facts.json"
    facts = json.loads(file.read_text())
    for changed in (facts | {"step": 4}, {**facts, "more": 1}, [facts], {"step": 3}):
        file.write_text(json.dumps(changed))
        with pytest.raises(RunError, match="damaged"):
            checkpoint.load(tmp_path / "c", OLD)


def test_a_replay_guard_has_its_file_and_entry_on_the_disk_before_the_noise(tmp_path, monkeypatch):
    seen, fsync = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: (seen.append(os.fstat(handle).st_ino), fsync(handle))
    )
    ReplayGuard(tmp_path / "sums").check("r", "seal")
    assert seen == [(tmp_path / "sums").stat().st_ino, tmp_path.stat().st_ino]


def test_two_procedures_under_one_key_sample_independently(ledger):
    """The accountant composes their subsampled releases as independent; with equal batches they
    cost more."""
    batches = {}

    class Recording(DPSGD):
        def measure(self, state, step, key):
            batches[self.name, step] = tuple(self.sampler.indices(key, step))
            return super().measure(state, step, key)

    for name in ("one", "two"):
        plain = dpsgd()
        fields = {f: getattr(plain, f) for f in plain.__dataclass_fields__}
        loop.run(Recording(**{**fields, "name": name}), ledger, KEY)
    assert all(batches["one", step] != batches["two", step] for step in range(STEPS))


def test_two_procedures_under_one_key_have_noise_of_their_own(ledger):
    streams = []

    def noted(promised):
        @dataclass(frozen=True)
        class Noted(Gaussian):
            def release(self, bound):
                streams.append(tuple(bound.key.stream("noise", "w").integers(2**63, size=4)))
                return super().release(bound)

        return Noted(promised.multiplier)

    for name in (
        "one",
        "two",
    ):  # full batches of one data set: their first sums are equal, bit for bit
        loop.run(dpsgd(name=name, sampler=FullBatch(STEPS, N)), ledger, KEY, noise=noted)
    assert len(streams) == 2 * STEPS
    assert len(set(streams)) == len(streams), "releases share noise"


def test_another_computation_under_a_paid_for_name_is_refused(ledger):
    loop.run(dpsgd(), ledger, KEY)
    with pytest.raises(LedgerError, match="made releases with this key"):
        loop.run(dpsgd(ROWS[::-1].copy(), optimizer=optax.sgd(0.1)), ledger, KEY)


def test_a_replay_guard_refuses_a_repetition_on_other_data(tmp_path):
    """It would be a second release for one payment."""
    with Ledger.create(tmp_path / "run", delta=1e-3, epsilon_max=50.0) as book:
        loop.run(dpsgd(), book, KEY, replay_guard=ReplayGuard(tmp_path / "sums"))
        changed = ROWS.copy()
        changed[int(dpsgd().sampler.indices(KEY.at("dp-sgd"), 0)[0])] += 1e-3
        with pytest.raises(LedgerError, match="another sum"):
            loop.run(dpsgd(changed), book, KEY, replay_guard=ReplayGuard(tmp_path / "sums"))
        with open(tmp_path / "sums", "a") as torn:
            torn.write('{"release": "dp-')
        loop.run(dpsgd(), book, KEY, replay_guard=ReplayGuard(tmp_path / "sums"))
