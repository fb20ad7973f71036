"""`sfumato data list` and `sfumato data info`. Nothing here imports JAX, which alone takes a
second."""

from pathlib import Path
from typing import Any

from sfumato import data
from sfumato.core.errors import DataError, on_one_line
from sfumato.data.listing import left_out_words


def list_data() -> None:
    for name in data.names():
        facts = data.published(name)
        height, width, colors = facts.shape
        counts = " + ".join(f"{count:,} {split}" for split, count in facts.counts.items())
        print(
            f"{name:<14} {height}x{width}x{colors}  {len(facts.classes):>3} classes  {counts:<28} {facts.title}"
        )


def data_info(name: str, data_dir: Path | None, **reading: Any) -> None:
    """What is published (for a named data set) and what is on this machine. reading: for
    `ReadOptions`; units are counted."""
    if name in data.names():
        facts = data.published(name)
        print(f"{facts.title}\n  address  {facts.address}\n  license  {facts.license}")
        for file in facts.files:
            print(f"  file     {file.name}  (md5 {file.md5})")
    try:
        options = data.ReadOptions(**reading)
        found = data.describe(name, data_dir=data_dir, options=options, download=False)
    except DataError as error:
        if name not in data.names():
            raise
        print(f"  here     no: {error}")
        return
    shape = "x".join(map(str, found.shape)) if found.shape else "unknown size"
    counts = ", ".join(f"{count:,} {split}" for split, count in found.counts.items())
    print(
        f"  here     {found.path}\n  images   {counts}; {shape}\n  classes  {', '.join(map(on_one_line, found.classes))}"
    )
    if found.left_out:
        print(f"  left out {left_out_words(found.left_out)}")
    if found.units is not None:
        print(f"  units    {found.units:,} train")
