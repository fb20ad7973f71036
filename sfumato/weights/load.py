"""Public weights by name or path -> networks."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

import equinox as eqx
import numpy as np

from sfumato.core.checks import choice, whole
from sfumato.core.errors import ArgumentError, WeightsError
from sfumato.networks import catalog
from sfumato.networks.architecture import Architecture, Shape
from sfumato.networks.backbone import Backbone
from sfumato.networks.image_cost import outline
from sfumato.networks.input import Input, Prepared
from sfumato.networks.layers.basic import Linear
from sfumato.networks.listed import listed
from sfumato.weights import own, places
from sfumato.weights.configs import read_config
from sfumato.weights.layout import Arrays, fill, fits
from sfumato.weights.raw import read

LAYOUTS = {
    "convnext": ("timm_convnext",),
    "efficientnet": ("timm_efficientnet", "melas_efficientnet"),
    "mobilenet": ("timm_mobilenet", "folded_mobilenet"),
    "nfnet": ("timm_nfnet",),
    "resnet": ("timm_resnet", "hf_resnet"),
    "resnetv2": ("timm_resnetv2",),
    "vit": ("timm_vit", "hf_vit", "hfbare_vit", "flax_vit"),
}
"""Family of networks -> modules of `sfumato.weights` with `layout` and `unused`; `own` serves every
family."""

_ANY_SIZE = 32
_MOST_CLASSES = 22_000
"""ImageNet-21k has 21,843."""


@dataclass(frozen=True)
class Weights:
    """arrays: by the file's own names, with the head. architecture: whose they are. input: how the
    network wants its image. classes: the names of the head's outputs, as far as the configuration
    says them. source: what the user named. sha256: of the file. license: as the configuration names
    it, None where it does not.
    """

    arrays: dict[str, np.ndarray]
    architecture: str
    input: Input
    classes: tuple[str, ...]
    source: str
    sha256: str
    license: str | None = None

    def into(self, network: Backbone, head: str = "keep") -> Backbone:
        """The network (which may be abstract) with these weights. head: "keep" theirs, or "new":
        leave the network's own.

        Raises WeightsError, naming what is missing, left over or of another shape, and the model
        that would fit.
        """
        choice("head", head, ("keep", "new"))
        expected = self._outline(1)
        if type(network) is not type(expected):
            raise WeightsError(
                f"{self.source}: weights of {self.architecture} do not fit a {type(network).__name__}; choose "
                f"model={self.architecture!r}"
            )
        layout = _best_layout(self._family, network, self.arrays)
        theirs, ours = _outputs(layout, network, self.arrays), network.head.bias.shape[0]
        if head == "keep" and theirs != ours:
            self.into(network, "new")  # whatever else is wrong is said first
            problem = (
                f"its head has {theirs} outputs, the network's {ours}"
                if theirs
                else "the file has no head"
            )
            raise WeightsError(
                f"{self.source}: {problem}; take a new head (head='new', or a number of classes)"
            )
        try:
            return fill(network, self.arrays, layout.layout, layout.unused, head == "keep")
        except WeightsError as error:
            related = any(
                name in self.arrays for entry in layout.layout(network) for name in entry.theirs
            )
            others = _fitting(self.arrays, self._family if related else None)
            way_out = (
                "fetch them again"
                if _fits(catalog.find(self.architecture), self.arrays)
                else _way_out(others)
            )
            raise WeightsError(
                f"{self.source}: weights do not fit {self.architecture}: {error}; {way_out}"
            ) from None

    def prepared(self, classes: int | None = None, size: int | None = None) -> Prepared:
        """The network behind its input. classes: of a new head of zeros; None keeps the weights'
        own head. size: another side of the image than the weights', in pixels. Raises
        ArgumentError, WeightsError.
        """
        given = self.input if size is None else replace(self.input, size=whole("size", size))
        if classes is None:
            network = self._outline(1, given)
            outputs = _outputs(
                _best_layout(self._family, network, self.arrays), network, self.arrays
            )
            return Prepared(self.into(self._outline(outputs or 1, given), "keep"), given)
        network = self._outline(whole("classes", classes), given)
        network = eqx.tree_at(
            lambda network: network.head, network, Linear.zeros(network.size, classes)
        )
        return Prepared(self.into(network, "new"), given)

    @property
    def _family(self) -> str:
        return catalog.find(self.architecture).family

    def _outline(self, classes: int, given: Input | None = None) -> Backbone:
        return outline(catalog.find(self.architecture), _shape(given or self.input), classes)


def load(
    name_or_path: str | Path, model: str | None = None, cache_dir: Path | None = None
) -> Weights:
    """Public weights from a file (.safetensors, .npz, .pth, .pt, .bin), from a directory as the hub
    lays it out, from an installed package (efficientnet_lite0, ...), or from the hub by OWNER/NAME, which is downloaded to the hub's cache (`cache_dir`)
    when there is a network and it is not there yet.

    model: the architecture. Left out, it is what the file says, else the only one whose names and
    shapes are the file's. Behind the name, @sha256:DIGEST has only that file accepted; so has a
    FILE.sha256 beside it. Raises ArgumentError for an unknown model, and WeightsError.
    """
    wanted = None if model is None else catalog.find(model)
    place = places.find(str(name_or_path), None if cache_dir is None else Path(cache_dir))
    raw = read(place.file, place.sha256)
    try:
        facts = own.facts(raw) or read_config(place.config, place.preprocessor)
        architecture = _architecture(
            raw.arrays, wanted, facts.architecture, place.file.name.split(".")[0]
        )
    except WeightsError as error:
        raise WeightsError(f"{place.source}: {error}") from None
    return Weights(
        raw.arrays,
        architecture.name,
        facts.input or architecture.input,
        facts.classes,
        place.source,
        raw.sha256,
        facts.license,
    )


def _architecture(
    arrays: Arrays, wanted: Architecture | None, said: str | None, file_name: str
) -> Architecture:
    """Whose the arrays are. wanted: as the user says. said: as the file or its configuration says;
    else its name is a hint, and names and shapes decide. Raises WeightsError.
    """
    stated = None if said is None else _known(said)
    if wanted is not None:
        if stated is not None and stated.name != wanted.name:
            raise WeightsError(
                f"made for {stated.name}, not for {wanted.name}; give {_by_flag(stated.name)}, or none"
            )
        return wanted
    if stated is not None:
        return stated
    if said is not None:
        raise WeightsError(f"made for {said!r}, which is not here; {_way_out(_fitting(arrays))}")
    hint = _known(file_name)
    if hint is not None and _fits(hint, arrays):
        return hint
    fitting = _fitting(arrays)
    if len(fitting) == 1:
        return catalog.find(fitting[0])
    if hint is not None and not fitting:
        return hint  # whose refusal says what is missing
    raise WeightsError(f"the file does not say its model; {_way_out(fitting)}")


def pretrained(
    name_or_path: str | Path,
    classes: int | None = None,
    size: int | None = None,
    model: str | None = None,
    cache_dir: Path | None = None,
) -> Prepared:
    """A network with public weights, behind its input: image, pixels in [0, 1] -> class scores.

    classes: of a new head of zeros; None keeps the weights' own. size: another side of the image
    than the weights', in pixels (position embeddings are interpolated). The rest as for `load`.
    """
    return load(name_or_path, model, cache_dir).prepared(classes, size)


def _known(name: str) -> Architecture | None:
    try:
        return catalog.named(name)
    except ArgumentError:
        return None


def _shape(given: Input) -> Shape:
    """Of the image; where the weights do not say, the network is taken to be for any size."""
    return given.size or _ANY_SIZE, given.size or _ANY_SIZE, given.colors or 3


# -- layouts


def _layouts(family: str) -> Iterable[ModuleType]:
    return [import_module(f"sfumato.weights.{name}") for name in (*LAYOUTS.get(family, ()), "own")]


def _best_layout(family: str, network: Backbone, arrays: Arrays) -> ModuleType:
    """The one of whose names the most are in the file, and of those the one with the fewest that
    are not."""

    def match(module: ModuleType) -> tuple[int, int]:
        names = {name for entry in module.layout(network) for name in entry.theirs}
        found = sum(name in arrays for name in names)
        return found, found - len(names) if found else 0

    return max(_layouts(family), key=match)


def _outputs(module: ModuleType, network: Backbone, arrays: Arrays) -> int:
    """Outputs of the file's head; 0 if it has none."""
    bias = next(entry for entry in module.layout(network) if entry.ours == "head/bias")
    if any(name not in arrays for name in bias.theirs):
        return 0
    return int(np.asarray(bias.convert(*(arrays[name] for name in bias.theirs))).size)


def _way_out(fitting: list[str]) -> str:
    """For weights that fit these networks of the catalog."""
    if not fitting:
        return (
            "they fit no network that `sfumato models` lists; choose the model they were made for by --model (model=), or "
            "take other weights"
        )
    if len(fitting) == 1:
        return f"they fit {fitting[0]}: give {_by_flag(fitting[0])}"
    return f"they fit {', '.join(fitting)}; choose one of them by --model (model=)"


def _by_flag(model: str) -> str:
    """On the command line, and in Python."""
    return f"--model {model} (model={model!r})"


def _fitting(arrays: Arrays, family: str | None = None) -> list[str]:
    """The networks of the catalog (of one family) whose names and shapes are those of the file. Of
    those that differ in the size of their image alone, the one whose position embeddings need no
    resizing.
    """
    numbers = sum(array.size for array in arrays.values())
    fitting = [
        each.name
        for each in catalog.architectures().values()
        if family in (None, each.family) and _may_fit(each, numbers) and _fits(each, arrays)
    ]
    return [name for name in fitting if _is_whole(name, numbers)] or fitting


def _is_whole(name: str, numbers: int) -> bool:
    """Is a file of so many numbers this network as it is, with a head of any number of outputs or
    none?"""
    found = listed().get(name)
    if found is None:
        return False
    outputs, rest = divmod(numbers - found.trunk, found.features + 1)
    return rest == 0 and outputs >= 0


def _may_fit(architecture: Architecture, numbers: int) -> bool:
    """Could a file of so many numbers hold it? Position embeddings of another grid, statistics to
    be folded and a head of many classes are allowed for. Spares building most networks, which takes
    long.
    """
    found = listed().get(architecture.name)
    if found is None:
        return True
    return 0.9 * found.trunk <= numbers <= 1.2 * found.trunk + (found.features + 1) * _MOST_CLASSES


def _fits(architecture: Architecture, arrays: Arrays) -> bool:
    network = outline(architecture, _shape(architecture.input), 1)
    return any(
        fits(network, arrays, each.layout, each.unused) for each in _layouts(architecture.family)
    )
