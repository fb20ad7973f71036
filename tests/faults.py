"""Sfumato in a forked process, with a fault planted in its file system: a server for
`test_faults.py`.

Imports are done once; a child per request runs one command. Where a fault may strike is counted in
operations: calls that change or flush something below the run's directory. What a child releases it
notes, before the release is used, in a file outside of that directory that no fault touches: so the
ledger can be held against what really happened.

    request    {"arguments": [...], "root": directory, "notes": file, "fault": null or {...}, "seconds": null or number,
                "light": true for a run without JAX and figures, whose files are made by the same
                code}
    answer     {"status": exit status (negative: killed), "err": stderr, "operations": ["write ledger.jsonl", ...],
                "seconds": s}

A fault {"at": k, "how": h} strikes at operation k: kill before it, or (half) with half of a write
done; "power": kill before it and leave on the disk only what was flushed; or an error by its errno
name, from then on. "nobody": the process runs as an unprivileged user. "clock": the clock leaps by
"leap" seconds and then runs backwards.
"""

import errno
import importlib
import json
import os
import resource
import shutil
import signal
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

OPERATIONS = (
    "write",
    "fsync",
    "replace",
    "rename",
    "link",
    "unlink",
    "ftruncate",
    "truncate",
    "mkdir",
    "rmdir",
    "chmod",
    "open",
)
REMOVING = ("unlink", "rmdir")
"""Always possible on a full disk."""


class Disk:
    """What a power cut leaves below `root`, at its worst: of a file the bytes it had when it was
    last flushed, of a directory the entries it had when it was flushed itself. What is there in the
    beginning was flushed.
    """

    def __init__(self, root: str):
        self.root, self.bytes, self.entries = root, {}, {}  # by inode
        self._open: list[int] = []  # held, so that no inode number comes twice
        for folder, _, files in os.walk(root):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                self.flushed(path)

    def flushed(self, path: str) -> None:
        handle = os.open(path, os.O_RDONLY)
        self._open.append(handle)
        found = os.fstat(handle)
        if stat.S_ISDIR(found.st_mode):
            self.entries[found.st_ino] = {
                each.name: (each.inode(), each.is_dir()) for each in os.scandir(path)
            }
        else:
            self.bytes[found.st_ino] = os.pread(handle, found.st_size, 0)

    def cut(self) -> None:
        """Make it so."""
        for each in os.scandir(self.root):
            shutil.rmtree(each) if each.is_dir() else os.unlink(each)
        self._leave(os.stat(self.root).st_ino, self.root)

    def _leave(self, inode: int, path: str) -> None:
        for name, (own, is_folder) in self.entries.get(inode, {}).items():
            place = os.path.join(path, name)
            if is_folder:
                os.mkdir(place)
                self._leave(own, place)
            else:
                Path(place).write_bytes(self.bytes.get(own, b""))


class Strike:
    """Wraps the calls of module `os` that change files below `root`; notes them, and strikes at
    one."""

    def __init__(self, root: str, fault: dict[str, Any] | None):
        self.root, self.fault, self.seen = root, fault or {}, []
        self.disk = Disk(root) if self.fault.get("how") == "power" else None
        self.real = {name: getattr(os, name) for name in OPERATIONS}
        for name in OPERATIONS:
            setattr(os, name, self.wrapped(name))

    def where(self, name: str, arguments: tuple[Any, ...], settings: dict[str, Any]) -> str | None:
        """The path that a call changes, if that lies below the root."""
        if name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR):
            return None
        first, folder = arguments[0], settings.get("dir_fd")
        try:
            path = (
                os.readlink(f"/proc/self/fd/{first}")
                if isinstance(first, int)
                else os.fspath(first)
            )
            path = (
                os.path.abspath(path)
                if folder is None
                else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path)
            )
        except (OSError, TypeError):
            return None
        return path if path.startswith(self.root) else None

    def wrapped(self, name: str) -> Callable[..., Any]:
        real = self.real[name]

        def call(*arguments: Any, **settings: Any) -> Any:
            path = self.where(name, arguments, settings)
            if path is None:
                return real(*arguments, **settings)
            self.seen.append(f"{name} {os.path.basename(path)}")
            if len(self.seen) >= self.fault.get("at", 1e9):
                self.strike(name, arguments)
            result = real(*arguments, **settings)
            if self.disk is not None and name == "fsync" and not self.forgotten(path):
                self.disk.flushed(path)
            return result

        return call

    def strike(self, name: str, arguments: tuple[Any, ...]) -> None:
        how = self.fault["how"]
        if how.startswith("E"):
            if name not in REMOVING:
                raise OSError(
                    getattr(errno, how), os.strerror(getattr(errno, how)), str(arguments[0])
                )
            return
        for changed, real in self.real.items():
            setattr(os, changed, real)
        if how == "half" and name == "write":
            os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
        if self.disk is not None:
            self.disk.cut()
        os.kill(os.getpid(), signal.SIGKILL)

    def forgotten(self, path: str) -> bool:
        """For controls: flushes that a program without them would not have made."""
        which = {"directories": os.path.isdir(path), "ledger": path.endswith("ledger.jsonl")}
        return which.get(self.fault.get("forget", ""), False)


def note_releases(path: str) -> None:
    """Write down the name of every release at the moment it exists."""
    from sfumato.noise import Gaussian

    handle, write, release = (
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666),
        os.write,
        Gaussian.release,
    )

    def noted(self: Gaussian, bound: Any) -> Any:
        released = release(self, bound)
        write(handle, f"{bound.release.name[-1]}\n".encode())
        return released

    Gaussian.release = noted  # type: ignore[method-assign]


class Light:
    """A procedure of the plan's releases in NumPy, which makes of its state whatever was released."""

    name = "light"

    def __init__(self, plan: Any):
        self._releases = [each for each in plan.releases for _ in range(each.count)]

    @property
    def steps(self) -> int:
        return len(self._releases)

    def start(self) -> dict[str, Any]:
        return {"w": np.zeros((3, 4), np.float32)}

    def event(self, step: int) -> Any:
        return self._releases[step].event

    def mechanism(self, step: int) -> Any:
        from sfumato.noise import Gaussian

        return Gaussian(self._releases[step].noise_multiplier)

    def measure(self, state: dict[str, Any], step: int, key: Any) -> Any:
        from sfumato.clip import BoundedSum, Sensitivity

        drawn = key.stream("sample", step).standard_normal((3, 4)).astype(np.float32)
        return BoundedSum(
            {"w": np.tanh(np.asarray(state["w"])) + drawn}, Sensitivity.of_contribution(1.0)
        )

    def absorb(self, state: dict[str, Any], step: int, released: dict[str, Any]) -> dict[str, Any]:
        return {"w": np.asarray(state["w"]) + np.asarray(released["w"])}


class LightClassifier:
    def __init__(self, state: dict[str, Any]):
        self._state = state

    def save(self, directory: Path, privacy: dict[str, Any]) -> None:
        from sfumato.core import files

        files.write_atomic(directory / "model.safetensors", np.asarray(self._state["w"]).tobytes())
        files.write_json(directory / "model.json", privacy)


def lighten() -> None:
    """What a run computes is replaced; what it writes, and when, is not. But a checkpoint is waited for, so that
    file operations, which are counted, come in one order."""
    from sfumato.report import html
    from sfumato.runs import training
    from sfumato.runs.jobs import Job
    from sfumato.train.saver import Saver

    def build(plan: Any, *_: Any) -> Job:
        return Job(Light(plan), LightClassifier, lambda state: np.eye(3, dtype=np.int64) * 13)  # type: ignore[arg-type]

    save = Saver.save

    def saved(self: Saver, *arguments: Any) -> None:
        save(self, *arguments)
        self.wait()

    Saver.save = saved  # type: ignore[method-assign]
    training.build = build  # type: ignore[attr-defined]
    html.render = lambda facts: "a page"


def run_command(request: dict[str, Any]) -> int:
    from sfumato.cli import main

    if request.get("light"):
        lighten()
    note_releases(request["notes"])
    fault = request.get("fault") or {}
    if fault.get("how") == "nobody":
        os.setgid(65534)
        os.setuid(65534)
    if fault.get("how") == "clock":
        began, since, real = time.time(), time.monotonic(), time.gmtime
        time.time = lambda: began + fault["leap"] - (time.monotonic() - since)  # type: ignore[assignment]
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
        print(f"operations={json.dumps(strike.seen)}", file=sys.stderr)


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
        timer = (
            threading.Timer(request["seconds"], os.kill, (child, signal.SIGKILL))
            if request.get("seconds")
            else None
        )
        if timer:
            timer.start()
        _, status = os.waitpid(child, 0)
        if timer:
            timer.cancel()
            timer.join()
        err.seek(0)
        said, _, operations = err.read().partition("operations=")
    return {
        "status": os.waitstatus_to_exitcode(status),
        "err": said,
        "operations": json.loads(operations or "[]"),
        "seconds": time.monotonic() - began,
    }


def serve() -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    for module in (
        "sfumato.cli",
        "sfumato.cli.printing",
        "sfumato.estimators.image_classifier",
        "dp_accounting.pld",
        "dp_accounting.rdp",
        "matplotlib.figure",
        "matplotlib.backends.backend_svg",
        "scipy.stats",
        "safetensors.numpy",
        "jinja2",
        "optax",
    ):
        importlib.import_module(module)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    serve()
