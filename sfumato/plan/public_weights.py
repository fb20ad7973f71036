"""Public weights in a run: looked up once, before anything is planned, and known by the hash of
their file ever after."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from sfumato.core.errors import ArgumentError, RunError
from sfumato.features import by_name
from sfumato.features.by_name import Shape
from sfumato.features.feature_map import FeatureMap
from sfumato.networks import catalog
from sfumato.networks.image_cost import outline
from sfumato.networks.input import Input, Prepared
from sfumato.plan.config import MethodConfig
from sfumato.plan.public_facts import PublicWeights


def input_of(
    model: str, size: int | None, weights: PublicWeights | None, crop: float | None = None
) -> Input | None:
    """How the network wants its image; None as its architecture says, or if it is none. crop: what it
    sees of an image, where it is trained on crops. Raises ArgumentError."""
    if crop is not None:
        own = input_of(model, size, weights) or catalog.find(model).input
        return replace(own, crop=crop, crop_larger=None)
    if weights is not None or size is None:
        return None if weights is None else weights.input
    if by_name.is_features(model):
        raise ArgumentError(
            "size",
            size,
            f"{model} has a size of its own; --resize the images, or give --weights or a network",
        )
    return replace(catalog.find(model).input, size=size)


def find(config: MethodConfig) -> PublicWeights | None:
    """The public weights a configuration names; None if it names none. Raises WeightsError,
    ArgumentError."""
    if config.weights is None:
        if config.train is not None:
            raise ArgumentError(
                "train", config.train, "is for public weights: name them by --weights"
            )
        return None
    model = None if config.model == "auto" else config.model
    if model is not None and by_name.is_features(model):
        raise ArgumentError(
            "model", model, "with --weights give the network they are for, or leave it out"
        )
    found = _load(config.weights, model)
    own = found.input if config.size is None else replace(found.input, size=config.size)
    return PublicWeights(config.weights, found.sha256, found.architecture, own, found.license)


@lru_cache(maxsize=2)
def _load(source: str, model: str | None) -> Any:
    """Filled into their network once, so that what does not fit is refused before a run directory
    is made."""
    from sfumato import weights

    found = weights.load(source, model)
    found.prepared(1)
    return found


def verify(weights: PublicWeights) -> Any:
    """The weights. Raises RunError if the file is no longer the one of the plan."""
    found = _load(weights.source, weights.model)
    if found.sha256 != weights.sha256:
        raise RunError(
            f"weights={weights.source!r}: their SHA-256 is {found.sha256}, the run began with {weights.sha256}; "
            "restore them or start a new run"
        )
    return found


def prepared(weights: PublicWeights, classes: int) -> Prepared:
    """The network with these weights and a new head of zeros (Mehta et al. 2022, Sec. 4), which takes
    its image as the plan says, whatever this version reads beside the file. Raises as `verify`."""
    network: Prepared = verify(weights).prepared(classes, weights.input.size)
    return replace(network, input=weights.input)


def feature_map(model: str, shape: Shape, weights: PublicWeights | None) -> FeatureMap:
    """The fixed feature map: of the network with public weights, or the one of that name."""
    if weights is None:
        return by_name.features(model, shape)
    return by_name.frozen(weights.model, prepared(weights, 1))


def feature_count(model: str, shape: Shape, weights: PublicWeights | None) -> int:
    """d, the length of its rows."""
    if weights is None:
        return by_name.feature_size(model, shape)
    return outline(catalog.find(weights.model), weights.input.shape(shape), 1).size
