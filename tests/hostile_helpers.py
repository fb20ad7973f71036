"""Bytes made to hurt, and the bounds within which a reader must refuse them."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from sfumato.core.errors import SfumatoError

EVERY_FILE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def refused(action: Callable[[], object]) -> str:
    """In one line, by an error of ours."""
    with pytest.raises(SfumatoError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def spoiled(content: bytes, stream: np.random.Generator) -> bytes:
    """Bytes changed, cut out, repeated, overwritten, cut off, in up to five places."""
    found = bytearray(content)
    for _ in range(stream.integers(1, 6)):
        if not found:
            break
        at = int(stream.integers(0, len(found)))
        match stream.integers(0, 5):
            case 0:
                found[at] ^= int(stream.integers(1, 256))
            case 1:
                del found[at : at + int(stream.integers(1, 40))]
            case 2:
                found[at:at] = found[: int(stream.integers(1, 40))]
            case 3:
                found[at : at + 4] = stream.integers(0, 256, 4, np.uint8).tobytes()
            case 4:
                del found[at + 1 :]
    return bytes(found)


def within(megabytes: int, code: str, *arguments: object) -> str:
    """Run code in a process that may grow by so much beyond its imports; its last line of output."""
    limited = (
        "import resource, sys; from pathlib import Path; import numpy; from sfumato import data; "
        "from sfumato.core.errors import SfumatoError; from sfumato.data import ReadOptions; import PIL.Image\n"
        "PIL.Image.init()\n"
        "now = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (now + {megabytes} * 2**20,) * 2)\n"
        f"try:\n    {code}\nexcept SfumatoError as error:\n    print('refused:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
