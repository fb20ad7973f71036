"""A run that is forked: copied while it was stopped, and gone on with twice. Noise is bound to what
it hides, so the difference of two releases of one name is as noisy as it looks, unless they are the
same release.
"""

import contextlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from chance import share_nothing
from seal_trees import TREES
from test_noise_banded import trainer
from test_training_loop import KEY, STEPS, dpsgd

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.errors import LedgerError
from sfumato.noise import NOISES, BandedGaussian, Gaussian, LatticeGaussian
from sfumato.noise.banded import Following, square_root_bands
from sfumato.privacy.ledger import Ledger
from sfumato.train import checkpoint, loop
from sfumato.train.replay_guard import ReplayGuard

SIZE = 500
WIDE = {"w": np.zeros((SIZE, 1), np.float32)}
DONE = 2


def procedure(kind, tilt=0.0):
    """A fork's sums differ by `tilt` from those of the other: by rounding, say."""
    make = trainer if kind == "banded" else dpsgd

    def clipped(params, examples, mask):
        value = {"w": params["w"] * 0 + np.float32(1) + np.float32(tilt)}
        return BoundedSum(value, Sensitivity.of_contribution(1.0))

    return make(params=WIDE, clipped=clipped)


def go_on(folder, kind, tilt=0.0, until=None):
    """Everything that is released from the last checkpoint of a run directory on, by step."""
    one, seen = procedure(kind, tilt), {}
    absorb = one.absorb

    class Stopped(Exception):
        pass

    def absorbed(state, step, released):
        seen[step] = np.asarray(getattr(released, "value", released)["w"], np.float64).ravel()
        return absorb(state, step, released)

    def after(done, state):
        checkpoint.save(folder / "checkpoint", state, {"step": done})
        if done == until:
            raise Stopped

    one.absorb = absorbed
    found = checkpoint.load(folder / "checkpoint", one.start())
    state, first = (None, 0) if found is None else (found[0], found[1]["step"])
    with Ledger.open(folder) as book, contextlib.suppress(Stopped):
        loop.run(
            one,
            book,
            KEY,
            state=state,
            first=first,
            replay_guard=ReplayGuard(folder / "sums.jsonl"),
            after_step=after,
            noise=NOISES["lattice" if kind == "lattice" else "gaussian"].keeping,
        )
    return seen


def forked(tmp_path, kind):
    """Two copies of a run that was stopped with its checkpoint level with the ledger."""
    Ledger.create(tmp_path / "one", delta=1e-3, epsilon_max=50.0).close()
    go_on(tmp_path / "one", kind, until=DONE)
    return tmp_path / "one", shutil.copytree(tmp_path / "one", tmp_path / "two")


def check_noisy(one, two, tilt, deviation):
    """The difference of two releases has the noise of both: a deviation of 1.41, measured to 3 %."""
    rest = one - two + tilt
    assert rest.std() > deviation, "the difference is without noise"
    assert abs(rest.mean()) < 7 * rest.std() / SIZE**0.5
    assert rest.std() < 2 * deviation, "control: not much more than that"


@pytest.mark.parametrize("kind", ["gaussian", "lattice", "banded"])
def test_two_copies_that_round_differently_have_independent_noise(tmp_path, kind):
    """False alarms: 1e-9: deviations of 500 numbers, 9 of their own below."""
    one, two = forked(tmp_path, kind)
    tilt = 2**-20
    seen = [go_on(one, kind), go_on(two, kind, tilt)]
    scale = 2.0 / (square_root_bands(3)[0] if kind == "banded" else 1.0)
    for step in range(DONE, STEPS):
        if kind != "banded" or step == DONE:
            check_noisy(seen[0][step], seen[1][step], tilt, scale)
        assert (seen[0][step] - seen[1][step]).std() > scale, "the difference is without noise"
    with Ledger.open(one) as first, Ledger.open(two) as second:
        assert first.tally == second.tally == loop.tally(procedure(kind)), (
            "each has paid for what it released"
        )


@pytest.mark.parametrize("kind", ["gaussian", "lattice", "banded"])
def test_two_copies_of_equal_sums_make_the_same_releases(tmp_path, kind):
    one, two = forked(tmp_path, kind)
    first, second = go_on(one, kind), go_on(two, kind)
    assert all(np.array_equal(first[step], second[step]) for step in range(DONE, STEPS))


@pytest.mark.parametrize("kind", ["gaussian", "banded"])
def test_a_repeated_step_of_another_sum_is_refused(tmp_path, kind):
    one, _ = forked(tmp_path, kind)
    go_on(one, kind)
    shutil.rmtree(one / "checkpoint")
    before = (one / "ledger.jsonl").read_bytes()
    with pytest.raises(LedgerError, match="another sum"):
        go_on(one, kind, 2**-20)
    assert (one / "ledger.jsonl").read_bytes() == before


def test_without_its_replay_guard_a_run_is_not_repeated(tmp_path):
    """Nobody could tell a repetition from a second release."""
    one, _ = forked(tmp_path, "gaussian")
    shutil.rmtree(one / "checkpoint")
    (one / "sums.jsonl").unlink()
    with pytest.raises(LedgerError, match="which was paid for"):
        go_on(one, "gaussian")


def test_a_replay_guard_counts_a_last_line_without_its_newline(tmp_path):
    path = tmp_path / "sums"
    for release in ("r/0", "r/1"):
        ReplayGuard(path).check(release, "seal")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert ReplayGuard(path).knows("r/1") and path.read_bytes() == whole
    path.write_bytes(whole[:-2])
    assert not ReplayGuard(path).knows("r/1") and len(Path(path).read_text().splitlines()) == 1
    assert json.loads(path.read_text())["release"] == "r/0"


def test_a_later_step_of_equal_sums_tells_nothing_of_earlier_ones():
    """Copies of a run with correlated noise differ in step 0 and have equal sums in step 1, such as
    those of empty batches.

    False alarms: 1e-9: a deviation of 500 numbers, 7 of its own below. With the fresh noise in
    common it would be 0.45.
    """
    noise, later = BandedGaussian(1.0, square_root_bands(2)), []
    for first in (0.0, 1e-3):
        seals, bound = noise.memory(2)["seals"], Sensitivity.of_contribution(1.0)
        for step, value in enumerate((first, 0.0)):
            total = Following({"w": np.full(SIZE, value, np.float32)}, bound, seals.copy())
            released = noise.at(step, lambda each: f"r/{each}")(total, KEY.at(f"r/{step}"))
            seals[step] = released.seal
        later.append(np.asarray(released.value["w"], np.float64))
    fresh, taken_back = (
        1 / noise.coefficients[0],
        noise.coefficients[1] / noise.coefficients[0] ** 2,
    )
    assert (later[0] - later[1]).std() > 0.75 * (2 * (fresh**2 + taken_back**2)) ** 0.5, (
        "without noise of its own"
    )


def test_another_scale_or_mechanism_has_noise_of_its_own():
    """Two scales of the same noise on the same sum would tell both. False alarms: 1e-9."""
    value, draws = {"w": np.zeros(SIZE, np.float32)}, []
    for make, bound in (
        (Gaussian(1.0), 1.0),
        (Gaussian(1.5), 1.0),
        (Gaussian(1.0), 1.5),
        (LatticeGaussian(1.0), 1.0),
    ):
        total = BoundedSum(value, Sensitivity.of_contribution(bound))
        draws.append(np.asarray(make(total, KEY.at("r/0"))["w"], np.float64))
    assert share_nothing(np.stack(draws).reshape(4, -1)), "two releases share noise"


def test_a_seal_is_of_names_shapes_types_and_numbers():
    seals = [
        Gaussian(1.0).bind(BoundedSum(tree, Sensitivity.of_contribution(1.0)), KEY).seal
        for tree in TREES
    ]
    assert len(set(seals)) == len(TREES)
    on_device = BoundedSum(
        jax.tree.map(jax.numpy.asarray, TREES[0]), Sensitivity.of_contribution(1.0)
    )
    assert Gaussian(1.0).bind(on_device, KEY).seal == seals[0]
