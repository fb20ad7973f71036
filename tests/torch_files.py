"""PyTorch files made by hand: opcodes of pickles that say what the test wants, in a zip archive or, as
before version 1.6, in a row."""

import zipfile
from pathlib import Path

ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def number(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def name(module: str, what: str) -> bytes:
    return f"c{module}\n{what}\n".encode()


def row(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def dictionary(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(count: int, kind: str = "FloatStorage", key: str = "0") -> bytes:
    return row(text("storage"), name("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(held: bytes, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    sizes, steps = row(*map(number, shape)), row(*map(number, strides))
    arguments = row(held, number(offset), sizes, steps, b"\x89", ORDERED_DICT)
    return name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def write_torch(
    path: Path,
    body: bytes,
    storages: dict[str, bytes] | None = None,
    method: int = zipfile.ZIP_STORED,
) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("archive/byteorder", "little")
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
    return path


MAGIC, VERSION = number(0x1950A86A20F9469CFC6C), number(1001)
LITTLE_ENDIAN = b"}" + text("little_endian") + b"\x88s"


def write_in_a_row(
    path: Path,
    body: bytes,
    storages: dict[str, tuple[int, bytes]],
    head: tuple[bytes, ...] = (MAGIC, VERSION, LITTLE_ENDIAN),
    keys: bytes | None = None,
) -> Path:
    """As PyTorch wrote before version 1.6. storages: key -> how many numbers it is said to have, and
    its bytes. keys: the pickle of their list."""
    listed = b"](" + b"".join(map(text, storages)) + b"e"
    pickles = (*head, body, listed if keys is None else keys)
    content = b"".join(b"\x80\x02" + each + b"." for each in pickles)
    for count, numbers in storages.values():
        content += count.to_bytes(8, "little", signed=True) + numbers
    path.write_bytes(content)
    return path
