"""Every array shape and type that a signature promises is checked while the tests run (jaxtyping +
beartype)."""

import gc
import os

import programs

programs.arrange()  # before anything imports jax or NumPy

import typecheck  # noqa: E402

typecheck.arrange("sfumato")

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from run_helpers import ctrl_c_after, sfumato, succeeds, train_arguments, write_dataset  # noqa: E402

pytest_plugins = ("controls", "entropy", "pytester")

settings.register_profile("no clock", deadline=None)  # a busy machine is no failure
settings.load_profile("no clock")


@pytest.fixture(scope="session", autouse=True)
def _nobody_waits_for_the_disk() -> Iterator[None]:
    """Nothing in a process can tell whether its bytes are on the disk, and each flush takes
    milliseconds. What is flushed, and when, is seen by tests that put their own `fsync` there; power
    is cut in `make test-faults`. A handle that is none is still an error.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: os.fstat(handle) and None)
        yield


@pytest.fixture(scope="module", autouse=True)
def _programs_of_a_module() -> Iterator[None]:
    """Thousands of compiled programs would fill the memory; what another module needs again is in
    the cache on disk."""
    yield
    jax.clear_caches()


def pytest_collection_finish() -> None:
    """Modules and tests live to the end: the search for garbage need not go through them again and
    again, and goes less often through what the tests leave."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def pytest_sessionfinish() -> None:
    programs.settle()


@pytest.fixture
def noise_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise as a function of the release alone. Bound to sums, whose last bits differ between
    processors, seeded audits would see other noise on each, and whether they find enough would be
    luck.
    """
    from sfumato.noise import binding

    monkeypatch.setattr(binding, "under", lambda release, seal: release)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of PNG files. Copy it before changing anything."""
    return write_dataset(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="session")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run on `folder`. Copy it before changing anything."""
    run = tmp_path_factory.mktemp("finished") / "run"
    succeeds(*train_arguments(folder, run))
    return run


@pytest.fixture(scope="session")
def interrupted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, stopped with Ctrl-C after its second step. Copy it before changing anything."""
    run = tmp_path_factory.mktemp("interrupted") / "run"
    with ctrl_c_after(2):
        outcome = sfumato(
            *train_arguments(folder, run, "--checkpoint-seconds", 1e-6, "--insecure-seed", 1)
        )
    assert outcome.code == 130 and "resume" in outcome.err and outcome.err.count("\n") == 1
    return run
