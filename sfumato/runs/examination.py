"""What a bug report should say of the machine: no path, no name of a person or computer."""

import os
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

from sfumato import __version__
from sfumato.core import machine
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
        "processors": f"{machine.processors()} usable of {os.cpu_count()}",
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


def _memory() -> str:
    """Linux says how much is free; elsewhere only the size is told."""
    free, total = (
        None if size is None else f"{size / 2**30:.1f}"
        for size in (machine.free_memory(), machine.total_memory())
    )
    if total is None:
        return "unknown"
    return f"{total} GiB" if free is None else f"{free} GiB free of {total}"
