"""The layout is performance, never result: the same bits on any number of devices and processes, every
example once, one ledger, whoever dies."""

import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import jax.numpy as jnp
import layout_bench
import numpy as np
import pytest
from run_helpers import FULL_BATCH, refused, sfumato, succeeds

from sfumato.clip.fixed_point import LOW, Lattice, carried, plus, zeros
from sfumato.core import processes
from sfumato.core.devices import Layout
from sfumato.core.keys import SecretKey
from sfumato.sampling import Poisson
from sfumato.train.feed import Feed, _parts
from sfumato.train.spread import bytes_reduced

KEY = SecretKey.from_insecure_seed(1)


# -- sums in fixed point


@pytest.mark.parametrize("bound, n", [(1.0, 60), (0.3, 50_000), (1e-10, 5), (1e10, 1_300_000)])
def test_words_hold_a_sum_to_half_a_spacing_and_add_up_in_any_order(bound, n):
    lattice = Lattice(bound, n)
    assert bound <= lattice.scale < 2 * bound
    rng = np.random.default_rng(0)
    parts = (rng.standard_normal((9, 500)) * bound * 10.0 ** rng.uniform(-8, 0, (9, 500))).astype(
        np.float32
    )
    parts[0, :3] = bound * min(n, 9), -bound * min(n, 9), 0.0
    words = [lattice.words(jnp.asarray(part)) for part in parts]
    exact = [
        (np.asarray(high, np.float64) + np.asarray(low, np.float64) * 2.0**-LOW)
        * (lattice.scale / 2.0**lattice.bits)
        for high, low in words
    ]
    assert np.abs(np.array(exact) - parts).max() <= lattice.spacing / 2
    totals = []
    for order in (range(9), reversed(range(9))):
        total = zeros((500,))
        for k in order:
            total = plus(total, words[k])
        totals.append(total)
    together = carried(tuple(sum(each[j] for each in words) for j in (0, 1)))
    for j in (0, 1):
        assert np.array_equal(totals[0][j], totals[1][j])
        assert np.array_equal(totals[0][j], together[j]), "devices add up as batches do"
    wanted = np.sum(exact, axis=0)
    assert (
        np.abs(np.asarray(lattice.value(totals[0])) - wanted).max()
        <= 2.0**-22 * np.abs(wanted).max()
    )


def test_words_have_room_for_the_largest_sum_and_for_what_is_no_number():
    lattice = Lattice(1.0, 2**18 - 1)
    high, low = lattice.words(jnp.float32([2**18, -(2**18), np.nan, np.inf]))
    assert np.array_equal(high, [2**30, -(2**30), 0, 2**30]) and not np.any(low)
    with pytest.raises(ValueError, match="room"):
        Lattice(1.0, 2**52)


def test_one_example_moves_a_sum_in_words_by_at_most_its_sensitivity():
    """With what clip factors leave, 1e-5 of it."""
    lattice, rng = Lattice(1.0, 50_000), np.random.default_rng(1)
    for d in (10, 100_000):
        block = rng.standard_normal(d).astype(np.float32) * 10
        own = rng.standard_normal(d).astype(np.float32)
        own *= np.float32((1 - 1e-5) / np.linalg.norm(own))
        moved = [lattice.words(jnp.asarray(each)) for each in (block + own, block)]
        spacings = [
            np.asarray(b, np.int64) - np.asarray(a, np.int64) for a, b in zip(*moved, strict=True)
        ]
        apart = (spacings[0] * 2.0**LOW + spacings[1]) * lattice.spacing
        exact = block.astype(np.float64) - (block + own)
        assert np.linalg.norm(apart - exact) <= lattice.spacing * d**0.5 < 1e-6


# -- the feed


@pytest.mark.parametrize("processes, local", [(1, 1), (1, 4), (3, 1), (4, 2)])
@pytest.mark.parametrize("count", [0, 1, 7, 40, 61])
def test_over_processes_and_parts_every_index_is_fed_once(processes, local, count):
    indices, read = np.arange(count) * 3 + 1, []

    def fetch(at, step):
        read.append(at)
        return at

    fed, most = [], 0
    for process in range(processes):
        layout = Layout((None,) * local, process, processes)
        parts = list(_parts(fetch, indices, 0, 5, layout))
        assert all(len(mask) == 5 * local == len(at) for at, mask in parts)
        fed += [at[mask] for at, mask in parts]
        most = max(most, len(parts))
        assert most in (0, len(parts)), "all processes take part in as many rounds"
    assert np.array_equal(np.sort(np.concatenate([*fed, []])), indices)
    spare = sum(map(len, read)) - count
    assert spare <= processes * most, "at most one example a round is read in vain"


def test_all_processes_draw_the_same_batch_and_feed_it_once():
    sampler = Poisson(0.7, 3, 50)
    feeds = [
        Feed(lambda at, step: at, sampler, 4, Layout((None,), process, 3)) for process in range(3)
    ]
    for step in range(3):
        fed = []
        for feed in feeds:
            parts = [tuple(map(np.asarray, part)) for part in feed.step(KEY, step)]
            fed += [at[mask] for at, mask in parts]
        assert np.array_equal(np.sort(np.concatenate(fed)), sampler.indices(KEY, step)), (
            "who is fed"
        )


# -- devices


def holds(*names):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, layout_bench.__file__, "check", *names],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout.split() == list(names), done.stderr[-4000:]


def test_sums_are_the_same_to_the_last_bit_on_any_number_of_devices_and_noise_is_added_once():
    holds("sums", "noise")


@pytest.mark.slow
def test_runs_rows_and_empty_batches_are_the_same_on_any_number_of_devices():
    holds("runs", "rows", "empty")


@pytest.mark.slow
def test_an_audit_over_four_devices_sees_most_of_what_is_claimed():
    holds("audit")


def test_parameters_are_cut_along_their_largest_axis_that_devices_divide():
    layout = Layout((None,) * 4, whole=100, leaf=50)
    shape = lambda *size: np.zeros(size, np.float32)  # noqa: E731
    tree = {"a": shape(6, 8), "b": shape(12, 8), "c": shape(3), "d": shape(5, 7)}
    specs = {name: tuple(spec) for name, spec in layout.specs(tree, tree).items()}
    assert specs == {"a": (None, "fsdp"), "b": ("fsdp",), "c": (), "d": ()}
    assert set(map(tuple, layout.specs(tree, {"c": shape(3)}).values())) == {()}, "small as a whole"
    sent = bytes_reduced(tree, layout, 3)
    whole, cut = 3 + 35, 6 * 8 + 12 * 8
    assert sent["once a step"] == 8 * whole * 2 * 3 / 4
    assert sent["a step"] == sent["once a step"] + 3 * sent["for each physical batch"]
    assert sent["for each physical batch"] == 12 * cut * 3 / 4


# -- several processes


@pytest.fixture(scope="module")
def command(folder):
    """All images in every step, four at once; how samples are dealt is seen above."""
    return (
        *("train", "--data", folder, *FULL_BATCH, "--physical-batch-size", 4),
        *("--epsilon", 1, "--insecure-seed", 1, "--checkpoint-seconds", 0.001),
    )


@pytest.fixture(scope="module")
def alone(command, tmp_path_factory):
    """The run of one process, on one device."""
    run = tmp_path_factory.mktemp("alone") / "run"
    succeeds(*command, "--out", run)
    return run


@pytest.fixture(scope="module")
def forked():
    """Makes processes that have imported everything: half of what short ones take."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(layout_bench.PRELOAD)
    with pytest.MonkeyPatch.context() as patch:
        here = str(Path(layout_bench.__file__).parent)
        patch.setenv("PYTHONPATH", here + os.pathsep + os.environ.get("PYTHONPATH", ""))
        context.Process().start()  # one that does nothing: the server begins in this environment
    return context.Process


@pytest.fixture
def start(forked, tmp_path):
    """A process for each command, which find each other."""

    def begun(*commands, strikes=None, count=1):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        where = ("--coordinator", f"127.0.0.1:{port}", "--processes", len(commands))
        processes = []
        for k, command in enumerate(commands):
            arguments = [str(each) for each in (*command, *where, "--process", k)]
            given = (arguments, count, tmp_path / f"told-{k}", (strikes or {}).get(k))
            processes.append(forked(target=layout_bench.command, args=given, daemon=True))
            processes[-1].start()
        return processes, [tmp_path / f"told-{k}" for k in range(len(commands))]

    return begun


def ended(begun, patience=300.0):
    """Exit codes, and what each said; whoever still waits for one that died has a moment, and is then
    ended."""
    processes, told = begun
    limit = time.monotonic() + patience
    while all(each.exitcode is None for each in processes) and time.monotonic() < limit:
        time.sleep(0.02)
    moment = time.monotonic() + (1 if any(each.exitcode for each in processes) else patience)
    while any(each.exitcode is None for each in processes) and time.monotonic() < moment:
        time.sleep(0.02)
    for each in processes:
        each.kill()
        each.join()
    return [each.exitcode for each in processes], [path.read_text() for path in told]


def releases(run):
    lines = (run / "ledger.jsonl").read_text().splitlines()[1:]
    return [json.loads(line)["release"] for line in lines]


def same_run(run, alone):
    assert releases(run) == releases(alone) == [f"dp-sgd/{step}" for step in range(4)]
    for name in ("model.safetensors", "plan.json", "evaluation.json"):
        assert (run / name).read_bytes() == (alone / name).read_bytes(), name
    assert not (run / "secret.key").exists() and not (run / "work").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "place, process",
    list(product(("before payment", "after payment", "before update", "after update"), (0, 1))),
)
def test_whoever_dies_wherever_the_run_goes_on(tmp_path, command, alone, start, place, process):
    """Two processes, one of which is killed at its third step; then one goes on alone."""
    run = tmp_path / "run"
    both = [(*command, "--out", run)] * 2
    codes, said = ended(start(*both, strikes={process: (place, 3)}))
    assert codes[process] == -9, said
    assert codes[1 - process] != 0 and not (run / "result.json").exists(), "whoever is left, ends"
    paid = releases(run)
    assert paid == [f"dp-sgd/{step}" for step in range(len(paid))] and 2 <= len(paid) <= 4
    succeeds("resume", run)
    same_run(run, alone)


@pytest.mark.slow
@pytest.mark.parametrize("processes, count", [(2, 2), (4, 1)])
def test_processes_and_devices_make_the_run_of_one(
    tmp_path, command, alone, start, processes, count
):
    run = tmp_path / "run"
    codes, said = ended(start(*[(*command, "--out", run)] * processes, count=count))
    assert codes == [0] * processes, said
    same_run(run, alone)
    told = ["accuracy" in each for each in said]
    assert told == [True] + [False] * (processes - 1), "one of them tells how it went"


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed, says",
    [
        (("--epsilon", "2"), "follow another configuration"),
        (("--out", "{other}"), "follow another configuration"),
        (("--devices", "1"), "use another number of devices"),
    ],
)
def test_processes_that_mean_something_else_are_refused_before_anything_is_paid(
    tmp_path, command, start, changed, says
):
    changed = [each.format(other=tmp_path / "other") for each in changed]
    commands = [(*command, "--out", tmp_path / "run")] * 2
    commands[1] = (*commands[1], *changed)
    codes, said = ended(start(*commands, count=2))
    assert codes == [2, 2], said
    for each in said:
        assert f"process 1 of 2 would {says} than process 0" in each
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "told, found",
    [
        ({}, None),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, {"local_device_ids": []}),
        ({"SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "3", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, {}),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, {"local_device_ids": []}),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, {}),
    ],
)  # fmt: skip
def test_whoever_starts_several_processes_is_recognized(monkeypatch, told, found):
    """Alone on its machine a process has all its devices; of several, JAX gives each one."""
    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "TPU_", "KUBERNETES_")):
            monkeypatch.delenv(name)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    assert processes.launched() == found


def test_wrong_places_are_refused_in_one_line(tmp_path, command):
    run = (*command, "--out", tmp_path / "run")
    for flags, says in (
        (("--devices", 0), ("devices=0", "whole number")),
        (("--devices", 99), ("devices=99", "leave it out")),
        (
            ("--coordinator", "here", "--processes", 2, "--process", 0),
            ("coordinator='here'", "HOST:PORT"),
        ),
        (("--coordinator", "a:1", "--process", 0), ("processes=None", "all three")),
        (
            ("--coordinator", "a:1", "--processes", 2, "--process", 2),
            ("process=2", "the last is 1"),
        ),
    ):
        refused(tmp_path, *run, *flags, says=says)
        refused(tmp_path, *run, "--dry-run", "--no-estimate", *flags, says=says)


@pytest.mark.slow
def test_the_layout_stands_in_no_file(alone):
    config = json.loads((alone / "config.json").read_text())
    assert not {"devices", "coordinator", "processes", "process"} & config.keys()
    assert sfumato("train", "--help").out.count("--coordinator") >= 1
