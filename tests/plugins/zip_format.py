"""A format that Sfumato does not have: class folders in a .zip. One file, and a line in the registry."""

import zipfile
from pathlib import Path, PurePosixPath

from sfumato.data.formats.found import FOLDERS, Found, Naming, by_folders, listing_of
from sfumato.data.formats.recognized import Format
from sfumato.data.formats.spans import ShardRecords
from sfumato.data.listing import Listing
from sfumato.data.split import ReadOptions


class ZipRecords(ShardRecords):
    """The members of one file."""

    def __init__(self, path: Path, names: list[str]):
        super().__init__([path], [len(names)])
        self.names = names

    def read(self, k: int) -> bytes:
        with zipfile.ZipFile(self.paths[0]) as archive:
            return archive.read(self.names[k])


def list_zip(path: Path, options: ReadOptions) -> Listing:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if PurePosixPath(name).suffix]
    records = ZipRecords(path, names)
    found = Found(records, {}, names, lambda k, column: f"{records.where(k)}: {column}")
    return listing_of(path, by_folders({"train": found}, str(path)), Naming(FOLDERS), options)


FORMAT = Format("a .zip of class folders", lambda path: path.suffix == ".zip", list_zip)
