"""Packages that only some commands need: imported where they are used; a missing one is one line with the
way out."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from sfumato.core.errors import ArgumentError

EXTRAS = {
    "hub": ("huggingface_hub",),
    "onnx": ("onnx", "onnxruntime"),
    "serve": ("starlette", "uvicorn"),
    "chacha": ("randomgen",),
}
"""Extra of pyproject.toml -> what it brings (a test holds both equal)."""


def need(extra: str, argument: str, value: Any) -> None:
    """Raises ArgumentError where a package of the extra is missing."""
    for name in EXTRAS[extra]:
        try:
            import_module(name)
        except ImportError:
            raise ArgumentError(
                argument, value, f"needs {name}; pip install 'sfumato[{extra}]'"
            ) from None


def installed(name: str) -> str | None:
    """The version of a package; None where it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
