"""How many examples are on the device at once: as many as a batch needs and the memory holds, found
before anything is paid, halved where the memory is exhausted after all, and repeated by a run that
goes on."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from run_helpers import FULL_BATCH, N, ctrl_c_after, refused, sfumato, succeeds

import sfumato as sf
from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.checks import whole_or_auto
from sfumato.core.errors import ArgumentError, RunError
from sfumato.core.keys import SecretKey
from sfumato.sampling import FullBatch, Poisson, WithoutReplacement
from sfumato.train import dpsgd, loop, physical
from sfumato.train.replay_guard import ReplayGuard

KEY = SecretKey.from_insecure_seed(3)
EXAMPLES, STEPS = 24, 4
ROWS = np.random.default_rng(0).normal(size=(EXAMPLES, 5)).astype(np.float32)


# -- the choice

SAMPLERS = {
    "known": FullBatch(3, 300),
    "small": Poisson(16 / 60_000, 50, 60_000),
    "usual": Poisson(4096 / 50_000, 50, 50_000),
    "fixed": WithoutReplacement(batch_size=100, steps=5, n=1000),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("most", [1, 7, 100, 10**6])
def test_little_is_wasted_and_no_more_is_taken_than_a_batch_needs(name: str, most: int) -> None:
    sampler = SAMPLERS[name]
    sizes = physical.batches(sampler)
    size = physical.evenly(sizes, most)
    assert 1 <= size <= min(most, max(sizes))
    padded = physical.parts(sizes, size) * size
    least = min(
        physical.parts(sizes, s) * (s + physical.PART) for s in range(1, min(most, max(sizes)) + 1)
    )
    assert padded <= physical.HARDLY * least
    if not sampler.secret and most >= 100:
        assert padded == sampler.expected_batch_size, "a batch of known size is split evenly"
    if name == "small":
        assert size < 32, "a batch of 16 was once padded to 155"


def line(at_zero: float, each: float) -> Callable[[int], float]:
    return lambda size: at_zero + each * size


@pytest.mark.parametrize("most", [None, 256])
@pytest.mark.parametrize("each", [1.0, 1.3, 80.0])
@pytest.mark.parametrize("bend", [0.0, 0.01])
def test_what_fits_is_found_with_few_programs(most: int | None, each: float, bend: float) -> None:
    asked: list[int] = []

    def needs(size: int) -> float:
        asked.append(size)
        return line(100, each)(size) + bend * size**2

    sizes = [4000, 4100, 3900]
    size = physical.fitting(needs, 1000.0, sizes, most)
    assert needs(size) <= 1000
    assert len(asked) <= 6
    fits = max(s for s in range(1, 5000) if needs(s) <= 1000 and s <= (most or 4100))
    assert size >= 0.5 * fits


def test_what_does_not_even_compile_is_too_large_and_one_example_that_does_not_fit_is_told() -> (
    None
):
    assert 10 <= physical.fitting(lambda s: math.inf if s > 40 else 1.0, 2.0, [500], None) <= 40
    with pytest.raises(
        ArgumentError, match="physical_batch_size='auto': one example alone"
    ) as told:
        physical.fitting(line(5.0, 1.0), 2.0, [500], None)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("value", ["all", "", 0, -3, True])
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(ArgumentError, match="physical_batch_size"):
        whole_or_auto("physical_batch_size", value)


# -- a step


class Exhausted:
    """The clipped sum of a device that is out of memory above `limit` examples, once `full`, after
    `spare` physical batches."""

    def __init__(self, limit: int, spare: int = 0):
        self.limit, self.full, self.spare = limit, False, spare
        self.measured: list[int] = []

    def __call__(self, params: Any, rows: Any, mask: Any) -> BoundedSum:
        size = len(mask)

        def look(mask: np.ndarray) -> np.ndarray:
            if self.full and size > self.limit and len(self.measured) >= self.spare:
                raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
            self.measured.append(int(mask.sum()))
            return np.float32(0)

        nothing = jax.pure_callback(look, jax.ShapeDtypeStruct((), jnp.float32), mask)
        unit = rows / jnp.linalg.norm(rows, axis=1, keepdims=True)
        return BoundedSum({"w": unit.T @ mask + nothing}, Sensitivity.of_contribution(1.0))


def procedure(clipped: Any, size: Any = 24) -> sf.DPSGD:
    return sf.DPSGD(
        params={"w": jnp.zeros(5)},
        clipped=clipped,
        fetch=lambda indices, step: ROWS[indices],
        optimizer=optax.sgd(0.1),
        sampler=FullBatch(STEPS, EXAMPLES),
        noise=sf.Gaussian(3.0),
        physical_batch_size=size,
    )


def run(method: sf.DPSGD, place: Path, **more: Any) -> Any:
    with sf.Ledger.create(place, delta=1e-3, epsilon_max=50.0) as ledger:
        state = loop.run(method, ledger, KEY, **more)
        return state, ledger.releases


def test_a_step_that_is_out_of_memory_is_measured_again_with_half_and_paid_once(
    tmp_path: Path,
) -> None:
    clipped = Exhausted(limit=6)
    method = procedure(clipped)

    def fill(done: int, state: Any) -> None:
        clipped.full = done >= 2

    with pytest.warns(
        UserWarning, match=r"step 3: out of memory with (24|12) examples at once; going on with"
    ):
        state, paid = run(method, tmp_path / "a", after_step=fill)
    assert paid == STEPS
    assert clipped.measured == [24, 24, *[6] * 8]
    assert method.at_once == 24 and method._sizes.at(2) == 6
    assert (tmp_path / "a").exists()
    expected, _ = run(procedure(Exhausted(99)), tmp_path / "b")
    np.testing.assert_allclose(
        method.measure(state, 0, KEY).value["w"],
        procedure(Exhausted(99)).measure(expected, 0, KEY).value["w"],
        rtol=1e-6,
    )


def test_nothing_of_the_first_attempt_is_in_the_sum() -> None:
    clipped = Exhausted(limit=6, spare=1)
    clipped.full = True
    method, expected = procedure(clipped, 12), procedure(Exhausted(99))
    with pytest.warns(UserWarning, match="12 examples at once"):
        found = method.measure(method.start(), 0, KEY)
    assert clipped.measured == [12, 6, 6, 6, 6]
    whole = expected.measure(expected.start(), 0, KEY)
    np.testing.assert_allclose(found.value["w"], whole.value["w"], rtol=1e-5)


def test_what_one_example_exhausts_and_what_is_another_error_is_raised(tmp_path: Path) -> None:
    for limit, size in ((0, 1), (0, 8)):
        clipped = Exhausted(limit)
        clipped.full = True
        with (
            pytest.warns(UserWarning) if size > 1 else _nothing(),
            pytest.raises((jax.errors.JaxRuntimeError, ValueError), match="RESOURCE_EXHAUSTED"),
        ):
            method = procedure(clipped, size)
            method.measure(method.start(), 0, KEY)


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_a_run_that_goes_on_repeats_its_sizes(tmp_path: Path) -> None:
    """Under the eyes of the replay guard: sums of other sizes may differ in their last bits."""
    file, guard = tmp_path / "sizes.json", ReplayGuard(tmp_path / "sums.jsonl")
    clipped = Exhausted(limit=6)
    first = procedure(clipped)
    first.remember(file)

    def fill(done: int, state: Any) -> None:
        clipped.full = done >= 2

    with sf.Ledger.create(tmp_path / "run", delta=1e-3, epsilon_max=50.0) as ledger:
        with pytest.warns(UserWarning):
            before = loop.run(first, ledger, KEY, replay_guard=guard, after_step=fill)
        again = procedure(seen := Exhausted(99), "auto")
        again.remember(file)
        after = loop.run(again, ledger, KEY, replay_guard=ReplayGuard(guard.path))
        assert ledger.releases == STEPS
    assert seen.measured == clipped.measured
    np.testing.assert_array_equal(before["params"]["w"], after["params"]["w"])
    file.write_text('{"sizes": [{"step": 3, "physical_batch_size": 6}]}')
    with pytest.raises(RunError, match="damaged"):
        procedure(seen).remember(file)


def test_too_much_for_the_memory_is_less_at_once_under_auto(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loss(params: jax.Array, example: dict[str, jax.Array]) -> jax.Array:
        return jnp.sum(jnp.tanh(example["row"][:, None] * params) ** 2)

    method = sf.DPSGD(
        loss,
        jnp.ones(64),
        sf.data.Arrays(row=np.random.default_rng(0).normal(size=(200, 500)).astype(np.float32)),
        optimizer=optax.sgd(0.1),
        sampler=FullBatch(1),
        noise=sf.Gaussian(3.0),
    )
    whole = method.needs(method.start()["params"], 200)
    monkeypatch.setattr(dpsgd, "free_memory", lambda: whole / 3)
    method.rehearse(method.start())
    assert (
        10 < method.at_once < 70
        and method.needs(method.start()["params"], method.at_once) < whole / 3
    )
    monkeypatch.setattr(dpsgd, "free_memory", lambda: 1000)
    with pytest.raises(ArgumentError, match="one example alone"):
        replace(method).rehearse(method.start())


# -- a run directory

TRAIN = (*FULL_BATCH, "--insecure-seed", "5")


@pytest.mark.slow
def test_what_does_not_fit_is_refused_before_there_is_a_directory(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dpsgd, "free_memory", lambda: 1000)
    for size in ("auto", 8):
        train = (
            "train",
            "--data",
            folder,
            *TRAIN,
            "--physical-batch-size",
            size,
            "--out",
            tmp_path / "run",
        )
        refused(tmp_path, *train, says=("physical_batch_size=",))


@pytest.mark.slow
def test_the_size_is_no_part_of_the_configuration_and_is_remembered(
    folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with ctrl_c_after(2):
        assert sfumato("train", "--data", folder, *TRAIN, "--out", run).code == 130
    assert json.loads((run / "config.json").read_text())["physical_batch_size"] is None
    assert json.loads((run / "plan.json").read_text())["settings"]["physical_batch_size"] == "auto"
    sizes = json.loads((run / "work/sizes.json").read_text())
    assert sizes == {"sizes": [{"step": 0, "physical_batch_size": N}]}
    succeeds("resume", run)
    assert not (run / "work").exists()


@pytest.mark.slow
def test_a_damaged_memory_of_sizes_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with ctrl_c_after(2):
        sfumato("train", "--data", folder, *TRAIN, "--checkpoint-seconds", "999", "--out", run)
    file = run / "work/sizes.json"
    file.write_text(file.read_text().replace(str(N), "0"))
    outcome = sfumato("resume", run)
    assert outcome.code == 2 and "sizes.json" in outcome.err and outcome.err.count("\n") == 1
