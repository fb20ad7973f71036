"""What Linux and macOS do differently stands in one module; Windows is refused in one line."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from sfumato.core import files, machine

PACKAGE = Path(machine.__file__).parents[1]
OF_A_SYSTEM = re.compile(
    r"^\s*(?:import|from) (?:fcntl|resource)\b|/proc/|sched_|sysconf|ru_maxrss|sys\.platform"
    r"|platform\.processor|os\.fsync|fallocate",
    re.M,
)


def test_only_one_module_asks_which_system_this_is() -> None:
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if OF_A_SYSTEM.search(path.read_text())
    }
    assert found == {"core/machine.py"}


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--data", "digits"]])
def test_windows_is_refused_by_name_in_one_line(arguments: list[str]) -> None:
    program = (
        "import sys; sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        "from sfumato.cli import main; main(sys.argv[1:])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr.count("\n") == 1 and "Windows" in ran.stderr and "WSL 2" in ran.stderr


def test_memory_is_counted_in_bytes_on_both_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_lines", lambda path: [])
    usage = SimpleNamespace(ru_maxrss=3 * 2**20)
    monkeypatch.setattr(machine.resource, "getrusage", lambda who: usage)
    for name, bytes_each in (("linux", 1024), ("darwin", 1)):
        monkeypatch.setattr(sys, "platform", name)
        assert machine.peak_memory() == 3 * 2**20 * bytes_each


def test_without_linux_files_sizes_are_the_systems_own_or_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "_lines", lambda path: [])
    assert machine.free_memory() is None
    assert machine.total_memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.processor()
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert machine.processors() == os.cpu_count()


@pytest.mark.parametrize("known", [True, False], ids=["full", "not on this disk"])
def test_macos_flushes_through_the_drives_own_cache(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, synced, fsync = [], [], os.fsync

    def control(handle: int, what: int) -> None:
        asked.append(what)
        if not known:
            raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(machine.fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(machine.fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), fsync(handle)))
    files.write_atomic(tmp_path / "file", "text")
    assert asked == [51, 51] and len(synced) == (0 if known else 2)  # the file and its directory


def test_room_is_taken_or_at_least_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows"
    with open(path, "wb") as file:
        file.truncate(2**20)
    files.reserve(path)
    assert 512 * path.stat().st_blocks >= 2**20
    monkeypatch.delattr(os, "posix_fallocate")
    with open(path, "wb") as file:
        file.truncate(2**20)
    files.reserve(path)
    disk = SimpleNamespace(f_bavail=1, f_frsize=4096)
    monkeypatch.setattr(os, "fstatvfs", lambda handle: disk)
    with pytest.raises(OSError, match="No space left"):
        files.reserve(path)
