"""Compressed files from strangers: every size is checked before memory is given for it."""

import io
import math
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

GROWTH, _ALLOWANCE = 100, 1 << 24
"""Weights and images hardly compress. What claims to unpack to more than 100 times its size (and 16
MiB) is a bomb."""


def most(path: Path) -> int:
    """Bytes to which a compressed file may unpack."""
    return GROWTH * path.stat().st_size + _ALLOWANCE


def npy_header(file: io.BufferedIOBase, size: int) -> tuple[tuple[int, ...], bool, "np.dtype"]:
    """What a .npy file of `size` bytes announces: the shape of its array, whether that is stored
    column by column, and its type. Afterwards `file` stands where the numbers begin.

    Raises ValueError where the bytes do not fill that shape, and for an array of objects, which
    would be a pickle.
    """
    import numpy as np

    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"a .npy of version {version}, which plain arrays do not need")
    read = np.lib.format.read_array_header_1_0
    shape, by_column, dtype = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(
        file
    )
    if dtype.hasobject:
        raise ValueError("it holds an array of Python objects")
    held = size - file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held:
        raise ValueError(f"it announces {dtype} {shape} and holds {held} bytes")
    return shape, by_column, dtype


class Archive:
    """A zip file whose members together are of a size that such data can have. Raises ValueError
    for any other."""

    def __init__(self, path: Path):
        self.limit = most(path)
        self._zip = zipfile.ZipFile(path)
        members = self._zip.infolist()
        self._members = {member.filename: member for member in members}
        if len(self._members) < len(members):
            raise ValueError("two of its members have one name")
        if sum(member.file_size for member in members) > self.limit:
            raise ValueError(f"its members claim more than {GROWTH} times the size of the file")

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def size(self, name: str) -> int:
        """Bytes of a member, as the archive claims."""
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        """A member's bytes, exactly as many as claimed, with the right CRC-32."""
        member = self._members[name]
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name} is packed by an uncommon method")
        with self._zip.open(member) as file:
            content = file.read(
                member.file_size
            )  # without a number, it would unpack before it looks at the claim
        if len(content) != member.file_size:
            raise ValueError(f"{name} ends early")
        return content
