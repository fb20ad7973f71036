"""Our own weights file: safetensors with the names of our leaves, and all that is needed to build
the network again.

Metadata: format, architecture, input (JSON), classes (JSON), digest. The digest is of names, shapes
and numbers; it tells a damaged file from a whole one (whoever changes a file on purpose can change
it, too: pin the SHA-256 of the file for that).
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import equinox as eqx
import numpy as np

from sfumato.core import typed_json
from sfumato.core.digests import digest_of
from sfumato.core.errors import ArgumentError, WeightsError
from sfumato.core.files import parse_json, write_atomic
from sfumato.core.trees import by_name, leaf_names
from sfumato.core.typed_json import Damaged
from sfumato.networks import catalog
from sfumato.networks.architecture import Shape
from sfumato.networks.backbone import Backbone
from sfumato.networks.input import Input, Prepared
from sfumato.weights.configs import StatedFacts
from sfumato.weights.layout import Entry, outlined, same
from sfumato.weights.raw import RawWeights

_FORMAT = "sfumato-weights-1"


def save(
    path: Path | str,
    prepared: Prepared,
    architecture: str,
    classes: Sequence[str] = (),
    shape: Shape | None = None,
) -> None:
    """Write a network, its head included, to a .safetensors file that `sfumato.weights.load` reads.

    classes: the names of the head's outputs. shape: of the (square) images it was trained on,
    needed where its input does not say size and colors. Raises ArgumentError.
    """
    from safetensors.numpy import save as encode

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ArgumentError("path", str(path), "give a name that ends in .safetensors")
    architecture = catalog.find(architecture).name
    if classes and len(classes) != len(prepared.network.head.bias):
        raise ArgumentError(
            "classes",
            len(classes),
            f"the head has {len(prepared.network.head.bias)} outputs; name each",
        )
    own = eqx.filter(prepared.network.joined(), eqx.is_inexact_array)
    arrays = {name: np.asarray(leaf) for name, leaf in by_name(own).items()}
    metadata = {
        "format": _FORMAT,
        "architecture": architecture,
        "classes": json.dumps(list(classes)),
        "input": json.dumps(asdict(_complete(prepared.input, shape))),
        "digest": digest_of(arrays),
    }
    write_atomic(path, encode(arrays, metadata))


def _complete(given: Input, shape: Shape | None) -> Input:
    """With size and colors, on which the network's structure may depend."""
    if None not in (given.size, given.colors):
        return given
    if shape is None or shape[0] != shape[1]:
        raise ArgumentError(
            "shape",
            shape,
            "give (side, side, colors) of the images; the network's input does not say",
        )
    return replace(given, size=given.size or shape[0], colors=given.colors or shape[2])


def facts(raw: RawWeights) -> StatedFacts | None:
    """What the file says of itself; None if it is no file of ours. Raises WeightsError if it is
    damaged."""
    if raw.metadata.get("format") != _FORMAT:
        return None
    if raw.metadata.get("digest") != digest_of(raw.arrays):
        raise WeightsError(
            "its content is not what was saved (the digest does not match); fetch or write it again"
        )
    try:
        given = typed_json.convert(Input, parse_json(raw.metadata["input"]))
        classes = typed_json.convert(
            tuple[str, ...], parse_json(raw.metadata["classes"]), "classes"
        )
        return StatedFacts(raw.metadata["architecture"], given, classes)
    except (KeyError, ValueError, Damaged) as error:
        raise WeightsError(f"its metadata is damaged ({error}); fetch or write it again") from None


# -- as a layout, for a network of any family


def layout(network: Backbone) -> Iterable[Entry]:
    """Every leaf under its own name; position embeddings of another grid are resized."""
    return [
        Entry(name, (name,), _resized(network) if name == "positions" else same)
        for name in leaf_names(outlined(network))
    ]


def _resized(network: Backbone) -> Callable[[np.ndarray], np.ndarray]:
    from sfumato.networks.vit import VisionTransformer
    from sfumato.weights.transformer_parts import positions

    assert isinstance(network, VisionTransformer)
    return lambda table: positions(network)(table[None])


def unused(name: str) -> bool:
    return False
