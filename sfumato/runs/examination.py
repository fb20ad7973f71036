"""What a bug report should say of the machine: no path, no name of a person or computer."""

import os
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from sfumato import __version__
from sfumato.core.errors import said
from sfumato.core.extras import extras, installed

_VARIABLES = ("XLA_FLAGS", "JAX_PLATFORMS", "JAX_ENABLE_X64", "OMP_NUM_THREADS")


def examined() -> dict[str, Any]:
    """What -> its value in words."""
    found = {
        "sfumato": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        **{name: installed(name) or "missing" for name in _dependencies()},
        **{
            f"extra {extra}": ", ".join(f"{name} {installed(name) or 'missing'}" for name in names)
            for extra, names in extras().items()
        },
        "devices": _devices(),
        "processors": f"{_usable()} usable of {os.cpu_count()}",
        "memory": _memory(),
        "temporary disk": f"{shutil.disk_usage(tempfile.gettempdir()).free / 1e9:.1f} GB free",
    }
    return found | {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def _dependencies() -> list[str]:
    """Of pyproject.toml, as installed."""
    import re

    try:
        given = requires("sfumato") or []
    except PackageNotFoundError:
        given = []
    names = [re.match(r"[\w.-]+", each) for each in given if "extra ==" not in each]
    return [each[0] for each in names if each]


def _devices() -> str:
    try:
        import jax

        return ", ".join(f"{each.platform} {each.device_kind}" for each in jax.devices())
    except Exception as error:  # drivers fail in many ways, which is what is to be told
        return f"none ({said(error)})"


def _usable() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _memory() -> str:
    """Linux says how much is free; elsewhere only the size is told."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {name: int(rest.split()[0]) for name, rest in (line.split(":") for line in lines)}
        return f"{sizes['MemAvailable'] / 2**20:.1f} GiB free of {sizes['MemTotal'] / 2**20:.1f}"
    except (OSError, ValueError, KeyError, IndexError):
        try:
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            return f"{total / 2**30:.1f} GiB"
        except (AttributeError, ValueError, OSError):
            return "unknown"
