"""Sfumato in a forked process, with a fault planted in its file system: a server for `test_faults.py`.

Imports are done once; a child per request runs one command. Where a fault may strike is counted in operations: calls that
change or flush something below the run's directory. What a child releases it notes, before the release is used, in a file
outside of that directory that no fault touches: so the ledger can be held against what really happened.

    request    {"arguments": [...], "root": directory, "notes": file, "fault": null or {...}, "seconds": null or number}
    answer     {"status": exit status (negative: killed), "err": stderr, "operations": count, "seconds": s}

A fault {"at": k, "how": h} strikes at operation k: kill before or after it, or (half) with half of a write done; or an
error by its errno name, from then on. "nobody": the process runs as an unprivileged user. "clock": time runs backwards.
"""

import errno
import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

OPERATIONS = ("write", "fsync", "replace", "rename", "link", "unlink", "ftruncate", "truncate", "mkdir", "open")


class Strike:
    """Wraps the calls of module `os` that change files below `root`; counts them, and strikes at one."""

    def __init__(self, root: str, fault: dict[str, Any] | None):
        self.root, self.fault, self.count = root, fault or {}, 0
        for name in OPERATIONS:
            setattr(os, name, self.wrapped(name, getattr(os, name)))

    def below(self, name: str, arguments: tuple[Any, ...]) -> bool:
        if name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR):
            return False
        first = arguments[0]
        try:
            path = os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else os.path.abspath(os.fspath(first))
        except (OSError, TypeError):
            return False
        return path.startswith(self.root)

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            if not self.below(name, arguments):
                return real(*arguments, **settings)
            self.count += 1
            how = self.fault.get("how", "")
            if how.startswith("E") and self.count >= self.fault["at"] and name != "unlink":
                raise OSError(getattr(errno, how), os.strerror(getattr(errno, how)), str(arguments[0]))
            if self.count != self.fault.get("at"):
                return real(*arguments, **settings)
            if how == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "half" and name == "write":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            result = real(*arguments, **settings)
            if how in ("after", "half"):
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call


def note_releases(path: str) -> None:
    """Write down the name of every release at the moment it exists."""
    from sfumato.noise import Gaussian

    handle, write, release = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666), os.write, Gaussian.__call__

    def noted(self: Gaussian, total: Any, key: Any) -> Any:
        released = release(self, total, key)
        write(handle, f"{key._prefix[-1]}\n".encode())
        return released

    Gaussian.__call__ = noted  # type: ignore[method-assign]


def run_command(request: dict[str, Any]) -> int:
    from sfumato.cli import main

    note_releases(request["notes"])
    fault = request.get("fault") or {}
    if fault.get("how") == "nobody":
        os.setgid(65534)
        os.setuid(65534)
    if fault.get("how") == "clock":
        began, since, real = time.time(), time.monotonic(), time.gmtime
        time.time = lambda: began - 3e8 - (time.monotonic() - since)  # type: ignore[assignment]
        time.gmtime = lambda seconds=None: real(time.time() if seconds is None else seconds)  # type: ignore[assignment]
    if "bytes" in fault:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["bytes"], fault["bytes"]))
    strike = Strike(request["root"], fault if "at" in fault else None)
    try:
        main(request["arguments"])
        return 0
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        print(f"operations={strike.count}", file=sys.stderr)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            status = 99
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                os.dup2(err.fileno(), 2)
                sys.stderr = os.fdopen(2, "w", buffering=1)
                status = run_command(request)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        timer = threading.Timer(request["seconds"], os.kill, (child, signal.SIGKILL)) if request.get("seconds") else None
        if timer:
            timer.start()
        _, status = os.waitpid(child, 0)
        if timer:
            timer.cancel()
            timer.join()
        err.seek(0)
        said, _, count = err.read().partition("operations=")
    return {"status": os.waitstatus_to_exitcode(status), "err": said, "operations": int(count or 0),
            "seconds": time.monotonic() - began}  # fmt: skip


def serve() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    for module in ("sfumato.cli", "sfumato.runs.commands", "sfumato.estimator", "dp_accounting.pld", "dp_accounting.rdp",
                   "matplotlib.figure", "matplotlib.backends.backend_svg", "scipy.stats", "safetensors.numpy", "jinja2",
                   "optax"):  # fmt: skip
        importlib.import_module(module)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
