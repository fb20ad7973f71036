"""The formats whose images are records: how a path is recognized as one, and what lists it. A new format is
a file with a function (path, options) -> `Listing`, and a line here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfumato.data.folder import list_folder
from sfumato.data.listing import Listing
from sfumato.data.split import ReadOptions
from sfumato.data.unreadable import names_to_skip


@dataclass(frozen=True)
class Format:
    """words: what a user may give, for messages. holds: whether a path is of this format; the first
    that says so lists it. Raises DataError, ArgumentError where it cannot."""

    words: str
    holds: Callable[[Path], bool]
    listed: Callable[[Path, ReadOptions], Listing]


FORMATS = (Format("a folder with one sub-folder of images per class", Path.is_dir, list_folder),)


def find_listing(path: Path, options: ReadOptions) -> Listing | None:
    """What lies at a path, without the images that the user's list leaves out; None where it is in
    none of these formats."""
    known = next((each for each in FORMATS if each.holds(path)), None)
    if known is None:
        return None
    listing = known.listed(path, options)
    names = names_to_skip(options.skip_unreadable)
    return listing.without(names) if names else listing
