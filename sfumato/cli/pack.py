"""`sfumato data pack` and `sfumato data unpack`: to records that are read at random, and back."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from sfumato.core.checks import MAX_PIXELS
from sfumato.plan.config import Log


@dataclass(frozen=True)
class _Read:
    data: tyro.conf.Positional[str]
    """A folder, a table, or any other files of images that `sfumato train` reads."""
    out: tyro.conf.Positional[Path]
    """Directory to create, or to continue if packing was stopped."""
    unit: str | None = None
    """Which images belong together, as for `sfumato train`."""
    label: str | None = None
    """Column of the labels, as for `sfumato train`."""
    path: str | None = None
    """Column of the images or of their paths."""
    split: str | None = None
    """Column that says train, val or test."""
    skip_unreadable: Path | None = None
    """Leave out the images in this list, which `sfumato data check` writes."""
    max_pixels: int = MAX_PIXELS
    """Largest image that is decoded, width times height."""
    log: Log = "bar"

    def _reading(self, gray: bool = False):  # type: ignore[no-untyped-def]
        from sfumato.data import ReadOptions

        return ReadOptions(
            gray=gray,
            skip_unreadable=self.skip_unreadable,
            unit=self.unit,
            max_pixels=self.max_pixels,
            label=self.label,
            path=self.path,
            split=self.split,
        )

    def _with_progress(
        self, title: str, work: Callable[[Callable[..., Callable[[int], None]]], None]
    ) -> None:
        from sfumato.runs.progress import make_progress

        progress = make_progress(self.log)

        def begin(total: int, done: int) -> Callable[[int], None]:
            progress.begin(title, total, "images", done=done)
            count = done

            def advance(more: int) -> None:
                nonlocal count
                count += more
                progress.advance(count)

            return advance

        try:
            work(begin)
        finally:
            progress.close()


@dataclass(frozen=True)
class PackData(_Read):
    """Any images as records that are read at random, resized once. As private as the images."""

    side: int | None = None
    """Shorter side in pixels; the center square is kept [bytes are copied as they are]."""
    quality: int = 95
    """Of the JPEGs that --side makes, 1 to 100."""
    gray: bool = False
    """With --side: one gray channel."""

    def __call__(self) -> None:
        from sfumato.data.packing import pack
        from sfumato.data.packs import PRIVATE

        def work(begin: Callable[..., Callable[[int], None]]) -> None:
            found = pack(
                Path(self.data).expanduser(),
                self.out,
                self._reading(self.gray),
                self.side,
                self.quality,
                begin,
            )
            counts = ", ".join(f"{count:,} {split}" for split, count in found.counts.items())
            size = sum(each.bytes for part in found.parts.values() for each in part.shards)
            print(f"packed    {self.out}: {counts} images, {size / 1e6:,.1f} MB")
            print(f"private   {PRIVATE}")

        self._with_progress("pack", work)


@dataclass(frozen=True)
class UnpackData(_Read):
    """Any images as a folder, OUT/train/CLASS/NAME.jpg, for programs that read folders."""

    def __call__(self) -> None:
        from sfumato.data.packing import unpack
        from sfumato.data.packs import PRIVATE

        def work(begin: Callable[..., Callable[[int], None]]) -> None:
            count = unpack(Path(self.data).expanduser(), self.out, self._reading(), begin)
            print(f"unpacked  {self.out}: {count:,} images")
            print(f"private   {PRIVATE}")

        self._with_progress("unpack", work)
