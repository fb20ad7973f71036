"""How the tests compile, and where compiled programs are kept between runs. Imported before jax,
which reads the environment.

Most of the tests' time goes into compiling small programs that run once, so LLVM optimizes none of
them; what is tested at the level that ships asks for it (`SHIPPED`). Programs are kept in the
user's cache for `make test`, `make test-all` and the processes that these start. A program holds
instructions of the processor that it was compiled for, and may not run on another: each kind of
processor and each version of the compiler has a directory of its own.
"""

import os
import tempfile
from pathlib import Path

from sfumato.core.program_cache import directory, prune, user_cache

QUICK = "--xla_backend_optimization_level=0"
SHIPPED = {"xla_backend_optimization_level": 3}
"""`compiler_options` of `jax.jit`: XLA's own default, whatever XLA_FLAGS say."""
MOST_BYTES = 2**30
_of_this_run: list[tempfile.TemporaryDirectory[str]] = []
_of_this_process: list[Path] = []


def home() -> Path:
    return user_cache("xla-tests")


def arrange() -> None:
    """Set what jax and NumPy read when they are imported, unless the caller has: then nothing of
    the caller's is deleted."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", QUICK)
    if (
        "PYTEST_XDIST_WORKER_COUNT" in os.environ
    ):  # threads of several workers on one core would wait for each other
        share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(max(1, share)))
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    root = home()
    try:
        directory(root).mkdir(parents=True, exist_ok=True)
        prune(root, MOST_BYTES)
    except OSError:  # a home that cannot be written: for this run alone
        _of_this_run.append(
            tempfile.TemporaryDirectory(prefix="sfumato-programs-", ignore_cleanup_errors=True)
        )
        root = Path(_of_this_run[0].name)
        directory(root).mkdir()
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": str(directory(root)),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    _of_this_process.append(root)


def settle() -> None:
    """At the end of a run, by the process that arranged it."""
    for root in _of_this_process:
        prune(root, MOST_BYTES)
