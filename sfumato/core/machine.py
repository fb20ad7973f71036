"""What Linux and macOS do differently: the only module that asks which system this is.

Windows is refused by name. A ledger is a lock as much as a file (two processes must not spend at once),
a run appears by the rename of a directory, and both are flushed by `fsync`; Windows has none of the
three in this form, and WSL has all of them.
"""

import errno
import os
import platform
import sys
from pathlib import Path

from sfumato.core.errors import SfumatoError

try:
    import fcntl
    import resource
except ImportError:  # Windows
    fcntl = resource = None  # type: ignore[assignment]

UNSUPPORTED = (
    "Windows is not supported: it lacks the file locks (fcntl) that keep two processes from spending one privacy "
    "budget; install Sfumato inside WSL 2, where everything works"
)


def refuse_unsupported() -> None:
    """Raises SfumatoError where Sfumato does not run."""
    if fcntl is None:
        raise SfumatoError(UNSUPPORTED)


def lock(handle: int) -> None:
    """Hold an open file until it is closed. Raises BlockingIOError where another process holds it, OSError
    where the file system has no locks, SfumatoError on Windows."""
    refuse_unsupported()
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def flush(handle: int) -> None:
    """Bytes of a file, or entries of a directory, are on the disk. `fsync` of macOS leaves them in the
    drive's own cache, which a power cut empties (its manual page says so); F_FULLFSYNC does not, where
    the file system has it. Raises OSError."""
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        try:
            fcntl.fcntl(handle, full)
            return
        except OSError:  # a file system without it, such as one on a network
            pass
    os.fsync(handle)


def take_room(handle: int) -> None:
    """A file's whole length, holes included, on the disk. Where the system cannot do so (macOS), there is at
    least room for it now. Raises OSError."""
    found = os.fstat(handle)
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, found.st_size)
        return
    disk = os.fstatvfs(handle)
    if disk.f_bavail * disk.f_frsize < found.st_size - 512 * found.st_blocks:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def processors() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def processor() -> str:
    """Its kind: "x86_64, AMD EPYC 7R13 Processor", as far as the system tells."""
    lines = _lines("/proc/cpuinfo")
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    parts = (platform.machine(), next(named, None) or platform.processor())
    return ", ".join(each for each in parts if each)


def instructions() -> str:
    """What tells one kind of processor from another, for compiled programs: the instructions that it has."""
    told = ("model name", "flags", "Features", "CPU part")
    traits = sorted({line for line in _lines("/proc/cpuinfo") if line.startswith(told)})
    return "\n".join([platform.machine(), platform.processor(), *traits])


def free_memory() -> int | None:
    """Bytes that programs may still take; None where the system does not say."""
    return _of_memory("MemAvailable")


def total_memory() -> int | None:
    """Bytes; None where the system does not say."""
    try:
        return _of_memory("MemTotal") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def peak_memory() -> int:
    """The most bytes that this process has held. `getrusage` would also count what its parent held when it
    started this one, in a notebook say; Linux tells both apart. It counts in KiB on Linux, in bytes on
    macOS."""
    for line in _lines("/proc/self/status"):
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _of_memory(name: str) -> int | None:
    for line in _lines("/proc/meminfo"):
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    return None


def _lines(path: str) -> list[str]:
    """None where there is no such file: only Linux has them."""
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
