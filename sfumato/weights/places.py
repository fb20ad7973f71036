"""What the user names -> the file, the configuration beside it, and the digest it must have."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core.errors import WeightsError
from sfumato.weights import hub, packages
from sfumato.weights.raw import SUFFIXES

_LARGEST_CONFIG = 1 << 24
_PIN = "@sha256:"
_PREFIXES = ("hf-hub:", "hf_hub:")


@dataclass(frozen=True)
class Place:
    """source: what the user named. config, preprocessor: as the hub's files of these names, empty
    if there are none."""

    source: str
    file: Path
    config: dict[str, Any]
    preprocessor: dict[str, Any]
    sha256: str | None


def find(name_or_path: str, cache_dir: Path | None = None) -> Place:
    """A file, a directory as the hub lays it out, the name of weights in an installed package
    (`packages.py`), or OWNER/NAME on the hub (hf-hub:OWNER/NAME where a directory has that name); each
    with @sha256:DIGEST behind it if it must be one certain file. Raises WeightsError.
    """
    name, _, pin = name_or_path.partition(_PIN)
    if _PIN in name_or_path and not re.fullmatch("[0-9a-f]{64}", pin):
        raise WeightsError(
            f"weights={name_or_path!r}: after {_PIN} come 64 hexadecimal digits, as `sha256sum` prints them"
        )
    prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "")
    path = Path(name).expanduser()
    if not prefix and not path.exists() and (package := packages.find(name)):
        return Place(name, package.path, package.config, {}, pin or package.sha256)
    if prefix or not path.exists():
        repository = name.removeprefix(prefix)
        if not hub.is_repository(repository) or (not prefix and path.suffix in SUFFIXES):
            raise WeightsError(
                f"weights={name!r}: no such file or directory; give a path, OWNER/NAME on the hub, such as "
                f"timm/vit_base_patch16_224.augreg_in21k, or a package's: {', '.join(packages.PACKAGES)}"
            )
        path = hub.download(repository, cache_dir)
    file = _weights_in(path) if path.is_dir() else path
    config = _json(file.with_suffix(".json")) or _json(file.parent / hub.CONFIGS[0])
    return Place(
        name,
        file,
        config,
        _json(file.parent / hub.CONFIGS[1]),
        pin or _digest_beside(file) or _digest_in_cache(file),
    )


def _weights_in(directory: Path) -> Path:
    """model.safetensors, pytorch_model.bin, or the only weights file there is."""
    there = sorted(path for path in directory.iterdir() if path.suffix in SUFFIXES)
    named = [directory / name for name in hub.WEIGHTS if directory / name in there]
    if not named and len(there) != 1:
        found = ", ".join(path.name for path in there[:5]) or "none"
        raise WeightsError(
            f"{directory}: expected {' or '.join(hub.WEIGHTS)}, or one weights file (found: {found}); name the "
            "file itself"
        )
    return (named or there)[0]


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise ValueError("far too large")
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON ({error}); fetch it again") from None
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path}: holds a {type(content).__name__}, not the settings of a model; fetch it again"
        )
    return content


def _digest_beside(file: Path) -> str | None:
    """From FILE.sha256 (model.safetensors.sha256), as `sha256sum` writes it."""
    beside = file.with_name(file.name + ".sha256")
    if not beside.is_file():
        return None
    with open(beside, errors="replace") as lines:
        found = re.match("[0-9a-f]{64}(?![0-9a-f])", lines.read(64 + 1))
    if found is None:
        raise WeightsError(
            f"{beside}: does not begin with 64 hexadecimal digits; write it with `sha256sum {file.name}`"
        )
    return found[0]


def _digest_in_cache(file: Path) -> str | None:
    """The hub's cache names large files by their SHA-256."""
    blob = file.resolve()
    return (
        blob.name
        if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name)
        else None
    )
