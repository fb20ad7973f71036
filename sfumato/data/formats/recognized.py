"""The formats whose images are records: how a path is recognized as one, and what lists it. A new format is
a file with a function (path, options) -> `Listing`, and a line here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfumato.core.errors import DataError
from sfumato.data.formats.array_records import is_array_record, list_array_record
from sfumato.data.formats.arrow_files import is_hub, is_saved, list_hub, list_saved
from sfumato.data.formats.folder import list_folder
from sfumato.data.formats.image_table import is_table, list_table
from sfumato.data.formats.packs import is_pack, list_pack
from sfumato.data.formats.parquet_images import is_parquet, list_parquet
from sfumato.data.formats.tar_shards import is_tar, list_tar
from sfumato.data.formats.tfrecord import is_tfrecord, list_tfrecord
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


FORMATS = (
    Format("hf:owner/name for a data set of the Hugging Face hub", is_hub, list_hub),
    Format("a directory of sfumato data pack", is_pack, list_pack),
    Format("a directory of datasets.save_to_disk", is_saved, list_saved),
    Format("a table of image files (.csv, .tsv, .jsonl, .parquet)", is_table, list_table),
    Format("Parquet with images in it", is_parquet, list_parquet),
    Format(".tar shards", is_tar, list_tar),
    Format("TFRecords", is_tfrecord, list_tfrecord),
    Format("ArrayRecords", is_array_record, list_array_record),
    Format("a folder with one sub-folder of images per class", Path.is_dir, list_folder),
)


def find_listing(path: Path, options: ReadOptions) -> Listing | None:
    """What lies at a path, without the images that the user's list leaves out; None where it is in
    none of these formats."""
    if not path.exists() and not is_hub(path):
        return None
    known = next((each for each in FORMATS if each.holds(path)), None)
    if known is None:
        return None
    listing = known.listed(path, options)
    names = names_to_skip(options.skip_unreadable)
    return listing.without(names) if names else listing


def need_listing(path: Path, options: ReadOptions) -> Listing:
    """The same, where nothing else will do. Raises DataError."""
    listing = find_listing(path, options)
    if listing is None:
        raise DataError(
            f"data={str(path)!r}: holds no encoded images; give {', '.join(each.words for each in FORMATS)}"
        )
    return listing
