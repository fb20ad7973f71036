"""The released classifier: two files that are enough to predict on another machine.

model.safetensors holds every array (also the fixed filters), model.json the name of the structure,
the classes, how to read an image, and the privacy statement in numbers. Where nothing is promised
(`privacy/not_private.py`) the first is model-not-private.safetensors, and both say so.
"""

import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from sfumato.core import devices, plugins, trees, typed_json
from sfumato.core.checks import MAX_PIXELS
from sfumato.core.errors import ArgumentError, DataError, RunError, SfumatoError, said
from sfumato.core.files import read_json, write_atomic, write_json
from sfumato.core.keys import public_stream
from sfumato.core.tasks import SINGLE, Task
from sfumato.data.decode import decode_file, of_image, refit
from sfumato.data.npz import read_images
from sfumato.data.rows import read_features
from sfumato.data.source import one_array, scaled, warn_if_not_finite
from sfumato.data.split import ReadOptions
from sfumato.features import by_name
from sfumato.features.by_name import GIVEN
from sfumato.networks.input import Input
from sfumato.privacy import fields
from sfumato.privacy.not_private import file_name
from sfumato.runs.given_images import arrays
from sfumato.runs.temperature import Calibration
from sfumato.train.metrics import decided
from sfumato.train.public_training import class_probabilities

MODEL = "model.safetensors"
_FORMAT = 1
_BLOCKS = (1, 16, 128)
"""Images that a program classifies at once; the last is also what bounds memory."""
_MOST_NUMBERS = 1 << 24
"""In an image."""


@dataclass(frozen=True)
class Spec:
    """What model.json says of the structure. head: "whitened", "linear" or a `Sphere.kind` for a
    model on fixed features (which a frozen network may compute), else None. input: how the network
    wants its image, if not as its architecture says. task: whether `classes` are names of findings.
    """

    model: str
    head: str | None
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    input: Input | None = None
    task: Task = SINGLE

    def __post_init__(self) -> None:
        """A shape may not ask for more memory than images do."""
        if min(self.shape) < 1 or math.prod(self.shape) > _MOST_NUMBERS:
            raise ValueError(f"shape {self.shape}")


class Classifier:
    """Images -> class probabilities. Built by `of` from a trained model or by `load` from a run
    directory."""

    def __init__(self, spec: Spec, model: eqx.Module):
        self.spec = spec
        self.model = model
        self.calibration: Calibration | None = None

    @property
    def on_rows(self) -> bool:
        """Is it for feature rows that its user brings?"""
        return self.spec.model == GIVEN

    @property
    def classes_(self) -> np.ndarray:
        """The names of the classes (or findings), in the order of the columns of `predict_proba`."""
        return np.array(self.spec.classes)

    def predict_proba(self, images: Any) -> Float32[np.ndarray, "b classes"]:
        """images: b x h x w x c, uint8 or floats in [0, 1]; also b x h x w if c is 1, and b x d
        where the model takes rows. Or the path of an image file, an image of Pillow's, or a list of
        these, of any size: they are brought to the model's. Rows have sum 1; those of a model of findings
        hold the probability of each.

        Raises ArgumentError for another shape or type, DataError for a file that cannot be read. Warns
        of images that hold NaN or infinity.
        """
        return self.probabilities(self._checked(arrays(self, images)))

    def predict(self, images: Any) -> Shaped[np.ndarray, "b ..."]:
        """The name of the class of each image, or 1 for each finding that is likelier than not and 0 for
        the others; images as to `predict_proba`."""
        return self.spec.task.answers(self.spec.classes, self.decide(self.predict_proba(images)))

    def decide(self, probabilities: Float[np.ndarray, "b classes"]) -> Int[np.ndarray, "b ..."]:
        """The number of the class that each row is called: the most probable one, unless a threshold
        was stored with the model (`runs/temperature.py`)."""
        found = self.calibration
        if found is None or found.positive is None:
            return self.spec.task.decided(probabilities)
        return decided(probabilities, self.spec.classes.index(found.positive), found.threshold)

    def probabilities(
        self, images: Shaped[np.ndarray, "b h w c"]
    ) -> Float32[np.ndarray, "b classes"]:
        """As `predict_proba`, of images that come from a `Source`: uint8, or pixels in [0, 1], but for a
        few wild ones.
        """
        found = self._uncalibrated(images)
        return found if self.calibration is None else self.calibration.applied(found)

    def _uncalibrated(
        self, images: Shaped[np.ndarray, "b h w c"]
    ) -> Float32[np.ndarray, "b classes"]:
        """At most one compilation for each of `_BLOCKS`, whatever b is: few images do not pay for
        many. Where there are many, every device takes the largest.
        """
        size = next((block for block in _BLOCKS if len(images) <= 4 * block), _BLOCKS[-1])
        spread = devices.here() if size == _BLOCKS[-1] and devices.here().local > 1 else None
        size *= 1 if spread is None else spread.local
        model = self.model if spread is None else self._everywhere
        parts = []
        for start in range(0, len(images), size):
            part = images[start : start + size]
            part = part if part.dtype == np.uint8 else np.asarray(part, np.float32)
            padding = [(0, size - len(part))] + [(0, 0)] * 3
            padded = jax.numpy.asarray(np.pad(part, padding))
            padded = padded if spread is None else spread.put_batch(padded)
            found = class_probabilities(model, padded, self.spec.task, spread)
            parts.append(np.asarray(found)[: len(part)])
        return np.concatenate(parts) if parts else np.zeros((0, len(self.spec.classes)), np.float32)

    @cached_property
    def _everywhere(self) -> eqx.Module:
        """The model on all devices of this process."""
        arrays, rest = eqx.partition(self.model, eqx.is_array)
        return eqx.combine(devices.here().put_everywhere(arrays), rest)

    def _checked(self, images: Any) -> Float32[np.ndarray, "b h w c"]:
        given, (h, w, c), rows = one_array(images), self.spec.shape, self.on_rows
        kind = "rows" if rows else "images"
        if rows and given.ndim == 2:
            given = given[:, None, None, :]
        if c == 1 and given.ndim == 3 and given.shape[1:] == (h, w):
            given = given[..., None]
        if given.shape[1:] != (h, w, c):
            one = (
                f"; of one {kind[:-1]} x give x[None]"
                if given.shape in ((h, w, c), (h, w) if c == 1 else (), (c,))
                else ""
            )
            wanted = f"n x {c} features" if rows else f"n images of shape {(h, w, c)}"
            raise ArgumentError(kind, f"shape {given.shape}", f"this model needs {wanted}{one}")
        if not rows:
            given = scaled(given)
        elif given.dtype.kind not in "iuf":
            raise ArgumentError(kind, f"dtype {given.dtype}", "give numbers")
        warn_if_not_finite(given, kind)
        return given.astype(np.float32)

    def fitted(self, picture: Any) -> Float[np.ndarray, "1 h w c"]:
        """An image of Pillow's as this model wants it. Raises DataError."""
        where = Path(getattr(picture, "filename", "") or "the image")
        try:
            pixels = of_image(picture, self.reading)
        except Exception as error:  # Pillow raises many kinds
            raise DataError(f"{where}: not a readable image ({said(error)})") from error
        return self.pixels(self._fitting(pixels[None], where))

    @property
    def reading(self) -> ReadOptions:
        """How images of any size are made what this model takes: the center square, where it takes
        squares."""
        height, width, colors = self.spec.shape
        return ReadOptions(resize=height if height == width else None, gray=colors == 1)

    def read(self, path: Path, max_pixels: int = MAX_PIXELS) -> Float[np.ndarray, "1 h w c"]:
        """An image file as this model wants it: its number of channels and its size (resized and
        center-cropped if not). max_pixels: a file of more is not decoded.

        Raises DataError.
        """
        if not path.is_file():
            problem = (
                "a folder, not an image"
                if path.is_dir()
                else "not a regular file"
                if path.exists()
                else "no such file"
            )
            raise DataError(f"images={str(path)!r}: {problem}")
        try:
            pixels = decode_file(path, replace(self.reading, max_pixels=max_pixels))
        except SfumatoError as error:
            raise DataError(f"{path}: {error}") from None
        except Exception as error:  # Pillow raises many kinds
            raise DataError(
                f"{path}: not a readable image ({' '.join(str(error).split())})"
            ) from error
        return self.pixels(self._fitting(pixels[None], path))

    def table(self, path: Path) -> np.ndarray:
        """All images of a .npy or .npz file, as stored; for a model of feature rows, all rows of a
        file or of a feature store's test split. Raises DataError.
        """
        if self.on_rows:
            rows = read_features(path, "test")
            if rows.shape[1] != self.spec.shape[2]:
                raise DataError(
                    f"{path}: rows of {rows.shape[1]} features; this model needs {self.spec.shape[2]}"
                )
            return np.asarray(rows)[:, None, None, :]
        images = read_images(path)
        if images.shape[1:] != self.spec.shape and images.dtype == np.uint8:
            images = refit(images, self.reading)
        return self._fitting(images, path)

    def _fitting(self, images: np.ndarray, path: Path) -> np.ndarray:
        (height, width, colors), found = self.spec.shape, images.shape[1:]
        if found != self.spec.shape:
            raise DataError(
                f"{path}: {found[1]}x{found[0]} pixels of {found[2]} channels; this model needs "
                f"{width}x{height} of {colors}"
            )
        return images

    @staticmethod
    def pixels(images: np.ndarray) -> Float[np.ndarray, "b h w c"]:
        """uint8 -> [0, 1]; floats pass as they are."""
        return images.astype(np.float32) / np.float32(255) if images.dtype == np.uint8 else images

    # -- files

    def save(self, directory: Path, privacy: dict[str, Any]) -> None:
        from safetensors.numpy import save

        privacy = typed_json.plain(privacy)
        marked = {"sfumato": privacy["not_private"]} if "not_private" in privacy else None
        write_atomic(directory / file_name(MODEL, privacy), save(self.arrays(), marked))
        facts = {"format": _FORMAT, **self.facts(), "privacy": privacy}
        fields.check("model.json", facts)
        write_json(directory / "model.json", facts)

    @classmethod
    def load(cls, directory: Path | str, trust: str | None = None) -> "Classifier":
        """trust: `package.module:function` of a network from outside, where the model has one; it is
        not imported because a file names it. Raises ArgumentError where that is missing, RunError if there is no model, its files do not belong together, or this version
        computes otherwise.

        The last is found out by a probe, an image of public noise whose probabilities are stored
        with the model.
        """
        from safetensors.numpy import load

        plugins.allow(trust)
        directory = Path(directory)
        try:
            facts = read_json(directory / "model.json")
            arrays = (directory / file_name(MODEL, facts.get("privacy", {}))).read_bytes()
            found = cls.of_parts(facts, load(arrays), directory)
            if mark := facts.get("privacy", {}).get("not_private"):
                warnings.warn(str(mark), stacklevel=2)
            found.calibration = Calibration.load(directory, found.spec.classes)
            return found
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(
                f"{directory}: no finished model here ({Path(error.filename).name} is missing); is the run "
                f"complete? try `sfumato resume {directory}`"
            ) from None
        except SfumatoError:
            raise
        except Exception as error:  # networks of shapes that cannot be fail in many ways
            said = (str(error).splitlines() or [type(error).__name__])[0]
            raise RunError(
                f"{directory}: the model files are damaged ({said}); restore them or train again"
            ) from error

    def facts(self) -> dict[str, Any]:
        """All but the arrays, as JSON has it."""
        return {
            **typed_json.plain(self.spec),
            "probe": [float(p) for p in self._uncalibrated(self._probe())[0]],
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """By their places in the model."""
        own = eqx.filter(self.model, eqx.is_array)
        return {name: np.asarray(leaf) for name, leaf in trees.by_name(own).items()}

    @classmethod
    def of_parts(
        cls, facts: dict[str, Any], arrays: dict[str, np.ndarray], where: Path | str
    ) -> "Classifier":
        """The inverse of `facts` and `arrays`. Raises RunError as `load`, naming `where`; anything
        for facts that cannot be."""
        classifier = _built(typed_json.convert(Spec, facts), arrays, where)
        own = classifier._uncalibrated(classifier._probe())[0]
        if not np.allclose(own, np.asarray(facts["probe"], float), atol=1e-3):
            raise RunError(
                f"{where}: this version of sfumato computes {facts['model']} differently from the one that trained "
                "the model; predict with that version, or train again"
            )
        return classifier

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles hold what the files hold: structure and arrays, no code of ours."""
        return _built, (self.spec, self.arrays(), "pickle")

    def _probe(self) -> Float32[np.ndarray, "1 h w c"]:
        return public_stream(0, "probe").random((1, *self.spec.shape), np.float32)


def _built(spec: Spec, arrays: dict[str, np.ndarray], where: Path | str) -> Classifier:
    skeleton = by_name.skeleton(spec.model, spec.head, spec.shape, len(spec.classes), spec.input)
    return Classifier(spec, _fill(skeleton, arrays, where))


def _fill(skeleton: eqx.Module, arrays: dict[str, np.ndarray], directory: Path | str) -> eqx.Module:
    own, static = eqx.partition(
        skeleton, lambda leaf: isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)
    )
    wanted = trees.by_name(own)
    for name, leaf in wanted.items():
        found = arrays.get(name)
        if found is None or found.shape != leaf.shape:
            raise RunError(
                f"{directory}: {name} should have shape {leaf.shape}, the file has "
                f"{None if found is None else found.shape}; the model files do not belong together"
            )
    filled = [jax.numpy.asarray(arrays[name]) for name in wanted]
    return eqx.combine(jax.tree.unflatten(jax.tree.structure(own), filled), static)
