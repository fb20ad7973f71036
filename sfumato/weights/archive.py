"""Zip archives from strangers: every size is checked before memory is given for it."""

import zipfile
from pathlib import Path

_GROWTH, _ALLOWANCE = 100, 1 << 24
"""Weights hardly compress. An archive that claims to unpack to more than 100 times its size (and 16 MiB) is a bomb."""


class Archive:
    """A zip file whose members together are of a size that weights can have. Raises ValueError for any other."""

    def __init__(self, path: Path):
        self.limit = _GROWTH * path.stat().st_size + _ALLOWANCE
        self._zip = zipfile.ZipFile(path)
        members = self._zip.infolist()
        self._members = {member.filename: member for member in members}
        if len(self._members) < len(members):
            raise ValueError("two of its members have one name")
        if sum(member.file_size for member in members) > self.limit:
            raise ValueError(f"its members claim more than {_GROWTH} times the size of the file")

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
            content = file.read(member.file_size)  # without a number, it would unpack before it looks at the claim
        if len(content) != member.file_size:
            raise ValueError(f"{name} ends early")
        return content
