"""`sfumato data unpack`: the encoded images of any data set of records -> a folder of class folders."""

import os
from collections.abc import Iterator
from pathlib import Path

from sfumato.core import files
from sfumato.core.errors import RunError
from sfumato.data.formats.recognized import need_listing
from sfumato.data.listing import Listing
from sfumato.data.split import ReadOptions
from sfumato.data.workers import spread
from sfumato.runs.packing import KINDS


def unpack(path: Path, out: Path, options: ReadOptions) -> int:
    """Write every image as OUT/SPLIT/CLASS/NAME, and return how many there are; with units as
    OUT/SPLIT/CLASS/UNIT/NAME. Raises DataError, ArgumentError, RunError where `out` is there."""
    listing = need_listing(path, options)
    if out.exists():
        raise RunError(f"out={str(out)!r}: exists already; give a new directory")
    aside = out.with_name(f".{out.name}.tmp")
    files.remove_directory(aside)
    files.make_directory(aside, 0o700)
    for place, content in _placed(listing):
        (aside / place).parent.mkdir(parents=True, exist_ok=True)
        (aside / place).write_bytes(content)
    os.replace(aside, out)
    files.sync_directory(out.absolute().parent)
    return sum(map(len, listing.parts.values()))


def _placed(listing: Listing) -> Iterator[tuple[Path, bytes]]:
    """Where each image goes: names come from others, so only their last part is kept, and what is
    there already gets a number."""
    seen: set[Path] = set()
    folders = _folders(listing.classes)
    for split, part in listing.parts.items():
        contents: Iterator[bytes] = spread(part.records.read_or_refuse, range(len(part)))
        for k, content in enumerate(contents):
            base = part.names[k].rsplit("/", 1)[-1]
            place = Path({"validation": "val"}.get(split, split)) / folders[part.labels[k]]
            if part.units is not None:
                place /= _safe(part.units[k]) or "unit"
            stem, ending = _safe(base.rsplit(".", 1)[0]) or "image", _ending(content, base)
            found, number = place / f"{stem}{ending}", 1
            while found in seen:
                found, number = place / f"{stem}-{number}{ending}", number + 1
            seen.add(found)
            yield found, content


def _folders(classes: tuple[str, ...]) -> list[str]:
    names = [_safe(name) or "class" for name in classes]
    return [name if names.count(name) == 1 else f"{name}-{k}" for k, name in enumerate(names)]


def _safe(name: str) -> str:
    """Without what would lead elsewhere or hide the file."""
    return "".join("_" if c in "/\\:\0" or not c.isprintable() else c for c in name).lstrip(".")[
        :200
    ]


def _ending(content: bytes, name: str) -> str:
    kinds = {b"jpeg": ".jpg", b"png": ".png", b"webp": ".webp", b"bmp": ".bmp"}
    kind = next((each for mark, each in KINDS if content.startswith(mark)), b"")
    return kinds.get(kind, "." + _safe(name.rsplit(".", 1)[-1]) if "." in name else "")
