"""Named random streams.

Two kinds of randomness must never be confused:

* the **secret key** decides who is sampled, how images are augmented and which noise is added.
  Privacy rests on it. It comes from the operating system's entropy (256 bits), lives in one file of
  mode 0600 and is destroyed when the run is complete;
* the **seed** decides initial weights and splits. It is public, and a user may fix it.

A stream is a pure function of (key, name): `key.stream("sample", 17)` is the same generator on
every call, on every machine, after every crash. So a replayed step replays its batch. The names of
noise contain a seal of the sum that it hides (`noise/binding.py`): the same sum has the same noise
and releases nothing new, another sum has other noise. Each stream is a Philox4x64-10 generator
(Salmon et al. 2011) with its own 128-bit key, derived from the master by keyed BLAKE2b (a
pseudo-random function), so streams of different names are independent for any feasible adversary.
Philox passes every statistical test known but was not designed against an adversary; ChaCha20
(Bernstein 2008), with 256-bit keys, was, and may be chosen in its place.
"""

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt32, UInt64

from sfumato.core import generators
from sfumato.core.errors import RunError
from sfumato.core.files import sync_directory, write_all, write_new
from sfumato.core.machine import flush

Name = str | int | np.integer


def _derive(master: bytes, name: tuple[Name, ...], size: int) -> bytes:
    """`size` bytes for this name. Every part is length-prefixed, so ("a", "bc") and ("ab", "c")
    differ."""
    digest = hashlib.blake2b(key=master, digest_size=size)
    for part in name:
        kind = b"i" if isinstance(part, (int, np.integer)) else b"s"
        encoded = str(part).encode()
        digest.update(kind + len(encoded).to_bytes(8, "big") + encoded)
    return digest.digest()


def _bits(
    master: bytes, name: tuple[Name, ...], rng: str = generators.DEFAULT
) -> Callable[[int], np.random.BitGenerator]:
    """Place of a counter -> a fresh source of bits of this name that begins there."""
    made = generators.find(rng)
    key = int.from_bytes(_derive(master, name, made.key_bytes), "big")
    return lambda counter: made.make(key, counter)


def _generator(
    master: bytes, name: tuple[Name, ...], rng: str = generators.DEFAULT
) -> np.random.Generator:
    return np.random.Generator(_bits(master, name, rng)(0))


def _words(
    bits: Callable[[int], np.random.BitGenerator], places: Int64[np.ndarray, " b"], count: int
) -> UInt64[np.ndarray, "b count"]:
    """Generators count up as they draw, and what they draw depends on their key and counter alone, so
    places far apart on the counter never meet."""
    words = [bits(place << 32).random_raw(count) for place in places.tolist()]
    return np.array(words, np.uint64).reshape(len(places), count)


class SecretKey:
    """256 secret bits and the streams derived from them. Its repr shows nothing of them."""

    def __init__(
        self,
        master: bytes,
        insecure: bool = False,
        prefix: tuple[Name, ...] = (),
        rng: str = generators.DEFAULT,
    ):
        self._master = master
        self.rng = rng
        self._prefix = prefix
        self.insecure = insecure

    @classmethod
    def from_entropy(cls) -> "SecretKey":
        return cls(secrets.token_bytes(32))

    @classmethod
    def from_insecure_seed(cls, seed: int) -> "SecretKey":
        """A key anyone can guess, for tests and benchmarks. It voids the guarantee; reports say so
        in red."""
        return cls(hashlib.sha256(f"insecure {seed}".encode()).digest(), insecure=True)

    def at(self, *name: Name) -> "SecretKey":
        """The same key, seen from under a name: `key.at("a").stream("b")` is `key.stream("a",
        "b")`."""
        return SecretKey(self._master, self.insecure, self._prefix + name, self.rng)

    def beside(self, name: Name) -> "SecretKey":
        """The same key, seen from under another last name: `key.at("a").beside("b")` is
        `key.at("b")`."""
        return SecretKey(self._master, self.insecure, (*self._prefix[:-1], name), self.rng)

    @property
    def name(self) -> tuple[Name, ...]:
        """From under which it is seen."""
        return self._prefix

    def using(self, rng: str) -> "SecretKey":
        """The same secret, its streams drawn by another of `generators.GENERATORS`. Raises
        ArgumentError if that is not installed."""
        generators.find(rng).make(0, 0)
        return SecretKey(self._master, self.insecure, self._prefix, rng)

    def stream(self, *name: Name) -> np.random.Generator:
        """The generator of this name; the same one, from its beginning, on every call."""
        return _generator(self._master, self._prefix + name, self.rng)

    def cipher_key(self, *name: Name) -> UInt32[np.ndarray, "8"]:
        """256 bits of this name, as eight words."""
        return np.frombuffer(_derive(self._master, self._prefix + name, 32), "<u4").astype(
            np.uint32
        )

    def words(
        self, name: tuple[Name, ...], places: Int64[np.ndarray, " b"], count: int
    ) -> UInt64[np.ndarray, "b count"]:
        """`count` (fewer than 2^31) random words for each place (from 0) of the stream of this name.

        Those of a place are a function of the key, the name and the place: they do not change with
        the other places that are asked for.
        """
        return _words(_bits(self._master, self._prefix + name, self.rng), places, count)

    def mac(self, *parts: bytes | memoryview) -> str:
        """A fingerprint of private data, the parts one after the other, that tells nothing to
        whoever lacks the key."""
        digest = hashlib.blake2b(key=self._master, digest_size=16, person=b"mac")
        for part in parts:
            digest.update(part)
        return digest.hexdigest()

    def piece_mac(self, piece: bytes | memoryview) -> bytes:
        """A fingerprint of a piece of private data, for a `mac` of many such; no `mac` is one."""
        return hashlib.blake2b(piece, key=self._master, digest_size=32, person=b"piece").digest()

    @property
    def fingerprint(self) -> str:
        """Names this key without revealing it."""
        return hashlib.blake2b(key=self._master, digest_size=16, person=b"fingerprint").hexdigest()

    def save(self, path: Path) -> None:
        """Write the key to a new file readable by its owner only. Raises FileExistsError."""
        write_new(
            path, ("insecure " if self.insecure else "secret ") + self._master.hex() + "\n", 0o600
        )

    @classmethod
    def load(cls, path: Path) -> "SecretKey":
        try:
            kind, text = path.read_text().split()
            master = bytes.fromhex(text)
        except FileNotFoundError:
            raise RunError(
                f"{path}: the key file is missing; without it the same noise cannot be drawn again, so "
                "this run cannot be resumed"
            ) from None
        except ValueError:
            raise RunError(f"{path}: not a key file; this run cannot be resumed") from None
        if len(master) != 32 or kind not in ("secret", "insecure"):
            raise RunError(f"{path}: not a key file; this run cannot be resumed")
        return cls(master, insecure=kind == "insecure")

    def __repr__(self) -> str:
        return f"SecretKey({self.fingerprint[:8]}{', insecure' if self.insecure else ''})"


def destroy(path: Path) -> None:
    """Overwrite and remove a key file. (File systems and SSDs may keep old blocks: keep runs on
    encrypted disks.)

    It may be gone already, also because another process is at the same.
    """
    try:
        handle = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        return
    try:
        write_all(handle, b"\0" * os.fstat(handle).st_size)
        flush(handle)
    finally:
        os.close(handle)
    path.unlink(missing_ok=True)
    sync_directory(path.parent)


def public_stream(seed: int, *name: Name) -> np.random.Generator:
    """A stream for what is public: initial weights, fixed filters."""
    return _generator(hashlib.sha256(f"public {seed}".encode()).digest(), name)


def public_words(
    seed: int, name: tuple[Name, ...], places: Int64[np.ndarray, " b"], count: int
) -> UInt64[np.ndarray, "b count"]:
    """As `SecretKey.words`, for what is public."""
    master = hashlib.sha256(f"public {seed}".encode()).digest()
    return _words(_bits(master, name), places, count)
