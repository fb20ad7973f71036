"""Generators of secret randomness: each knows how a stream is made of key bytes, its name, and
where the promise that it serves ends."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfumato.core.checks import choice
from sfumato.core.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.random import BitGenerator


@dataclass(frozen=True)
class Generator:
    """key_bytes: how many it takes. make: (key, place of its counter) -> the generator of streams on the host; raises
    ArgumentError if it is not installed. limits: for the report's list of what is not covered. help: for `--help`.
    drawing: the module that draws noise (`noise/drawing.py`)."""

    name: str
    key_bytes: int
    make: Callable[[int, int], "BitGenerator"]
    limits: tuple[str, ...]
    help: str
    drawing: str = "sfumato.noise.on_host"


def _philox(key: int, counter: int) -> Any:
    from numpy.random import Philox

    return Philox(key=key, counter=counter)


def _chacha(key: int, counter: int) -> Any:
    try:
        from randomgen import ChaCha
    except ImportError:
        raise ArgumentError(
            "noise_rng", "chacha", "needs the package randomgen: pip install 'sfumato[chacha]'"
        ) from None
    return ChaCha(key=key, counter=counter, rounds=20)


DEFAULT = "philox"
GENERATORS = {
    "philox": Generator(
        "Philox4x64-10",
        16,
        _philox,
        (
            "The generator of the noise, Philox4x64-10 with secret keys. It passes every known statistical test, but it is not "
            "a cipher; that nobody can predict it is an assumption (--noise-rng chacha uses a cipher).",
        ),
        "a quick generator with keys of 128 bits",
    ),
    "chacha": Generator(
        "ChaCha20",
        32,
        _chacha,
        (
            "The generator of the noise, ChaCha20 with secret keys. That nobody can predict it without them is an assumption, on "
            "which much of today’s encryption rests.",
        ),
        "a cryptographic one (needs the extra sfumato[chacha])",
    ),
    "chacha-device": Generator(
        "ChaCha20",
        16,
        _philox,
        (
            "The generator of the noise, ChaCha20 with secret keys. That nobody can predict it without them is an assumption, on "
            "which much of today’s encryption rests.",
            "The generator of all other secret draws (who takes part, views), Philox4x64-10 with secret keys, which is not a cipher.",
        ),
        "ChaCha20 for the noise, drawn where the sum lies: for large networks on accelerators",
        "sfumato.noise.on_device",
    ),
}
"""By the names of `--noise-rng`."""

HELP = " | ".join(f"{name}, {each.help}" for name, each in GENERATORS.items())


def find(name: str) -> Generator:
    """Raises ArgumentError for a name that nobody has."""
    return GENERATORS[choice("noise_rng", name, tuple(GENERATORS))]
