"""`sfumato data check`: every image of a data set is decoded once, and those that cannot be are listed."""

import json
from collections import Counter
from contextlib import closing
from pathlib import Path

from sfumato.core.checks import new_file
from sfumato.core.files import write_atomic
from sfumato.data import unreadable
from sfumato.data.decode import decode, why_not
from sfumato.data.formats.recognized import need_listing
from sfumato.data.listing import ListedPart
from sfumato.data.split import ReadOptions
from sfumato.data.workers import spread
from sfumato.plan.config import Log
from sfumato.runs.progress import Progress, make_progress

Size = tuple[int, int]


def check(place: Path, options: ReadOptions, out: Path, log: Log) -> str:
    """Write the list to `out`, readable by its owner only, and return what to tell. Raises
    ArgumentError, DataError; nothing is written then."""
    new_file("out", out)
    listing = need_listing(place, options)
    bad: list[tuple[str, str]] = []
    sizes: Counter[Size] = Counter()
    with closing(make_progress(log)) as progress:
        for split, part in listing.parts.items():
            bad += _check_part(split, part, options, sizes, progress)
    write_atomic(out, unreadable.as_text(bad), mode=0o600)
    total = sum(map(len, listing.parts.values()))
    if log == "json":
        found = {"images": total, "unreadable": len(bad), "sizes": len(sizes), "list": str(out)}
        return json.dumps({"event": "result", **found})
    told = [f"checked   {total:,} images: {len(bad):,} cannot be decoded, listed in {out}"]
    if bad:
        told.append(f"next      leave them out of a run by --skip-unreadable {out}")
    if len(sizes) > 1:
        most = ", ".join(f"{w}x{h} ({n:,})" for (h, w), n in sizes.most_common(3))
        told.append(
            f"warning   {len(sizes):,} sizes, most often {most}: a run needs --resize N to make them one"
        )
    return "\n".join(told)


def _check_part(
    split: str, part: ListedPart, options: ReadOptions, sizes: Counter[Size], progress: Progress
) -> list[tuple[str, str]]:
    """(name, why) of the records that cannot be decoded; the sizes of the others are counted."""

    def look(k: int) -> Size | str:
        try:
            height, width, _ = decode(part.records.read(k), options).shape
        except Exception as error:  # on hostile bytes a decoder may raise almost anything
            return why_not(error)
        return height, width

    bad = []
    progress.begin(f"checking {split}", len(part), "images")
    for k, found in enumerate(spread(look, range(len(part)))):
        if isinstance(found, str):
            bad.append((part.names[k], found))
        else:
            sizes[found] += 1
        progress.advance(k + 1)
    return bad
