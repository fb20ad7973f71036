"""`sfumato data pack`: any data set -> a packed one (`data/formats/packs.py`): images brought to one size once, in shards of records that
are read at random.

Shard after shard: a shard holds a fixed range of the listing's records, is written aside, flushed,
renamed, and noted with its SHA-256 in progress.jsonl; what was noted is not made again. Images are
decoded and encoded by all threads, a few ahead of the one that is written, so memory is bounded.
"""

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core import files
from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError, RunError
from sfumato.core.tasks import task_of
from sfumato.data.formats.array_records import ENDING, module
from sfumato.data.formats.examples import serialize
from sfumato.data.formats.packs import (
    IMAGE,
    MANIFEST,
    VERSION,
    Pack,
    PackedFile,
    PackedPart,
    PackIndex,
    written,
)
from sfumato.data.formats.recognized import need_listing
from sfumato.data.from_records import Decoded
from sfumato.data.listing import ListedPart, Listing
from sfumato.data.split import ReadOptions
from sfumato.data.workers import spread
from sfumato.runs.progress import Progress, Quiet

PROGRESS = "progress.jsonl"
SHARD = 4096  # records in one: of ImageNet at 268 pixels about 80 MB
KINDS = ((b"\xff\xd8", b"jpeg"), (b"\x89PNG", b"png"), (b"RIFF", b"webp"), (b"BM", b"bmp"))


@dataclass(frozen=True)
class _Image:
    content: bytes
    digest: bytes


@dataclass(frozen=True)
class _Packer:
    """Writes one listing. side: None copies the bytes as they are."""

    out: Path
    listing: Listing
    options: ReadOptions
    side: int | None
    quality: int
    progress: Progress

    def image(self, split: str) -> Callable[[int], _Image]:
        """What makes record k of a split."""
        records = self.listing.parts[split].records

        def copied(k: int) -> _Image:
            content = records.read_or_refuse(k)
            return _Image(content, hashlib.sha256(content).digest())

        if self.side is None:
            return copied
        shape = (self.side, self.side, 1 if self.options.gray else 3)
        decoded = Decoded(records, shape, self.options, kept=False)

        def resized(k: int) -> _Image:
            content = as_jpeg(decoded.one(k), self.quality)
            return _Image(content, hashlib.sha256(content).digest())

        return resized

    def shards(self, split: str) -> list[tuple[str, range]]:
        """File and records of each shard."""
        n = len(self.listing.parts[split])
        starts = range(0, n, SHARD)
        return [
            (f"{split}-{k:05}-of-{len(starts):05}{ENDING}", range(start, min(start + SHARD, n)))
            for k, start in enumerate(starts)
        ]

    def write(self, split: str, name: str, rows: range, done: int) -> dict[str, Any]:
        """One shard, for good; what progress.jsonl says of it. done: images that are there."""
        part, aside, digests = self.listing.parts[split], self.out / f".{name}.tmp", []
        writer = module(str(self.out)).ArrayRecordWriter(str(aside), "group_size:1,uncompressed")
        try:
            images: Iterator[_Image] = spread(self.image(split), rows)
            for k, image in zip(rows, images, strict=True):
                writer.write(self.example(part, k, image.content))
                digests.append(image.digest)
                self.progress.advance(done + len(digests))
        finally:
            writer.close()
        with open(aside, "rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        files.show(aside, self.out / name)
        facts = PackedFile(name, (self.out / name).stat().st_size, sha256, len(rows))
        return {**vars(facts), "digests": b"".join(digests).hex()}

    def example(self, part: ListedPart, k: int, content: bytes) -> bytes:
        label = int(part.labels[k])
        features: dict[str, bytes | int] = {
            IMAGE: content,
            "image/format": next((name for mark, name in KINDS if content.startswith(mark)), b""),
            "image/class/label": label,
            "image/class/text": self.listing.classes[label].encode("utf-8", "surrogateescape"),
            "image/filename": part.names[k].encode("utf-8", "surrogateescape"),
        }
        if part.units is not None:
            features["image/unit"] = part.units[k].encode("utf-8", "surrogateescape")
        return serialize(features)


def pack(
    path: Path,
    out: Path,
    options: ReadOptions,
    side: int | None = None,
    quality: int = 95,
    progress: Progress | None = None,
) -> Pack:
    """Pack the data set at `path` into `out`, or go on with a pack that was stopped there.

    options: as for reading; share and test_fraction do not count, everything is packed. side: pixels
    of the center square to which each image is brought; None copies the encoded bytes. quality: of the JPEGs,
    1 to 100.
    Raises DataError, ArgumentError, RunError.
    """
    if side is not None:
        whole("side", side)
    if not 1 <= whole("quality", quality) <= 100:
        raise ArgumentError("quality", quality, "give a quality of JPEG from 1 to 100")
    module(str(out))
    options = ReadOptions(
        **{**vars(options), "resize": side, "test_fraction": 0.0, "share": 1.0, "seed": 0}
    )
    listing = need_listing(path, options)
    task_of(listing.parts["train"].labels).need_classes("pack", str(path))
    done = _begin(out, listing, options, side, quality)
    there = sum(each["records"] for each in done.values())
    progress = progress or Quiet()
    progress.begin("pack", sum(map(len, listing.parts.values())), "images", done=there)
    packer = _Packer(out, listing, options, side, quality, progress)
    for split in listing.parts:
        for name, rows in packer.shards(split):
            if name not in done:
                done[name] = packer.write(split, name, rows, there)
                files.append_json(out / PROGRESS, done[name])
                there += len(rows)
    return _finish(packer, done)


def _begin(
    out: Path, listing: Listing, options: ReadOptions, side: int | None, quality: int
) -> dict[str, Any]:
    """The shards that are there. Raises RunError where `out` holds something else."""
    stamps = {split: part.records.stamp().hex() for split, part in listing.parts.items()}
    asked = {
        "pack": VERSION,
        "place": str(Path(listing.place).absolute()),
        "counts": {split: len(part) for split, part in listing.parts.items()},
        "stamps": stamps,
        "side": side,
        "quality": quality,
        "gray": options.gray,
        "unit": options.unit,
        "classes": list(listing.classes),
    }
    if not out.exists():
        files.make_directory(out, 0o700)
    elif not (out / PROGRESS).exists() and any(out.iterdir()):
        raise RunError(f"out={str(out)!r}: exists already; give a new directory")
    os.chmod(out, 0o700)
    files.remove_leftovers(out)
    if not (out / PROGRESS).exists():
        files.write_atomic(out / PROGRESS, json.dumps(asked) + "\n", mode=0o600)
        return {}
    lines, size = files.whole_lines((out / PROGRESS).read_bytes())
    try:
        found = [files.parse_json(line) for line in lines]
        good = found[0] == asked and all(isinstance(each["records"], int) for each in found[1:])
        shards = {str(each["file"]): each for each in found[1:]}
    except (ValueError, LookupError, TypeError):
        good, shards = False, {}
    if not good:
        raise RunError(
            f"out={str(out)!r}: was begun with another data set or other settings; give a new directory"
        )
    os.truncate(out / PROGRESS, size)
    return {name: each for name, each in shards.items() if _is_whole(out / name, each)}


def _is_whole(path: Path, told: dict[str, Any]) -> bool:
    return path.is_file() and path.stat().st_size == told["bytes"]


def _finish(packer: _Packer, done: dict[str, Any]) -> Pack:
    """Indexes, then the manifest, which makes it a pack."""
    listing, parts = packer.listing, {}
    for split, part in listing.parts.items():
        shards = [done[name] for name, _ in packer.shards(split)]
        digests = np.frombuffer(
            bytes.fromhex("".join(each["digests"] for each in shards)), np.uint8
        )
        content = PackIndex(part.labels, part.names, part.units, digests.reshape(-1, 32)).content()
        name = f"{split}.index.safetensors"
        files.write_atomic(packer.out / name, content, mode=0o600)
        index = PackedFile(name, len(content), hashlib.sha256(content).hexdigest(), len(part))
        parts[split] = PackedPart(
            tuple(
                PackedFile(each["file"], each["bytes"], each["sha256"], each["records"])
                for each in shards
            ),
            index,
        )
    side, gray = packer.side, packer.options.gray
    pack = Pack(
        VERSION,
        listing.name,
        listing.classes,
        None if side is None else (side, side, 1 if gray else 3),
        None if side is None else packer.quality,
        packer.options.unit,
        parts,
        listing.left_out,
    )
    files.write_json(packer.out / MANIFEST, written(pack), mode=0o600)
    (packer.out / PROGRESS).unlink()
    return pack


def as_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(
        content, "JPEG", quality=quality
    )
    return content.getvalue()
