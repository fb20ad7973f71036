"""What timm's and transformers' configuration files say of a network: its name, how it wants its
image, its classes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from sfumato.core.errors import WeightsError
from sfumato.networks import catalog
from sfumato.networks.input import Input

Config = Mapping[str, Any]
Method = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class StatedFacts:
    """architecture: a name of the catalog, or the file's own where that has none; None where the
    file says nothing. input: None where it says nothing. classes: their names, () where it does not
    say. license: of the weights.
    """

    architecture: str | None = None
    input: Input | None = None
    classes: tuple[str, ...] = ()
    license: str | None = None


def read_config(config: Config, preprocessor: Config) -> StatedFacts:
    """config.json and preprocessor_config.json, either of which may be empty. Raises WeightsError."""
    try:
        if "model_type" in config:
            return StatedFacts(
                _transformers_name(config),
                _transformers_input(config, preprocessor),
                _transformers_classes(config),
            )
        if "architecture" in config:
            return _timm(config)
        return StatedFacts(
            None, _transformers_input(config, preprocessor) if preprocessor else None
        )
    except WeightsError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise WeightsError(
            f"the configuration beside the weights is damaged ({type(error).__name__}: {error}); fetch it "
            "again, or remove it and name the model"
        ) from None


# -- timm

_LONGEST_LICENSE = 100
"""It is a name, such as apache-2.0."""


def _timm(config: Config) -> StatedFacts:
    """Before timm 0.9 the keys of pretrained_cfg were at the top."""
    given = config.get("pretrained_cfg", config)
    names = tuple(map(str, config.get("label_names") or given.get("label_names") or ()))
    architecture = str(config["architecture"]).split(".")[0]
    license = given.get("license") and " ".join(str(given["license"]).split())[:_LONGEST_LICENSE]
    if "input_size" not in given:
        return StatedFacts(architecture, None, names, license)
    colors, height, width = given["input_size"]
    if height != width:
        raise ValueError(f"images of {height} x {width}; square ones are expected")
    method: Method = "bilinear" if given.get("interpolation") == "bilinear" else "bicubic"
    own = Input(int(height), _numbers(given["mean"]), _numbers(given["std"]), method, int(colors))
    # Other modes (squash, border) show the whole image.
    cut = given.get("crop_pct") if given.get("crop_mode", "center") == "center" else None
    return StatedFacts(architecture, replace(own, crop_larger=_share(cut)), names, license)


def _share(value: Any) -> float | None:
    """Of each side that is seen at evaluation; None for all of it. Raises ValueError."""
    if value is None:
        return None
    if not 0 < float(value) <= 1:
        raise ValueError(f"a crop of {value} of the image; a share above 0 and up to 1 is expected")
    return float(value) if float(value) < 1 else None


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


# -- transformers

_VIT_SIZES = {
    (192, 12): "tiny",
    (384, 12): "small",
    (768, 12): "base",
    (1024, 24): "large",
    (1280, 32): "huge",
    (1408, 40): "giant",
}
_RESNET_DEPTHS = {
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
    ("bottleneck", (3, 4, 23, 3)): 101,
    ("bottleneck", (3, 8, 36, 3)): 152,
}
_BILINEAR = 2
"""Pillow's number of the method."""


def _transformers_name(config: Config) -> str:
    """The catalog's name for what transformers describes by numbers. Raises WeightsError for kinds
    of networks it lacks."""
    kind = config["model_type"]
    if kind == "vit":
        size = _VIT_SIZES.get((config.get("hidden_size", 768), config.get("num_hidden_layers", 12)))
        begins = f"vit_{size}_patch{config.get('patch_size', 16)}_"
        exact = f"{begins}{config.get('image_size', 224)}"
        others = [name for name in catalog.architectures() if name.startswith(begins)]
        return exact if exact in others or not others else min(others, key=len)
    if kind == "resnet":
        depths = tuple(config.get("depths", (3, 4, 6, 3)))
        return f"resnet{_RESNET_DEPTHS.get((config.get('layer_type', 'bottleneck'), depths))}"
    raise WeightsError(
        f"model_type={kind!r}: of the networks of transformers, only vit and resnet can be read; take timm's weights of the "
        "same network"
    )


def _transformers_input(config: Config, preprocessor: Config) -> Input | None:
    """transformers normalizes unless told otherwise; without preprocessor_config.json nothing is
    known."""
    if not preprocessor:
        return None
    size = (
        _side(preprocessor.get("crop_size"))
        or _side(preprocessor.get("size"))
        or config.get("image_size")
    )
    plain = preprocessor.get("do_normalize") is False
    mean, std = (
        ((0.0,), (1.0,))
        if plain
        else (_numbers(preprocessor["image_mean"]), _numbers(preprocessor["image_std"]))
    )
    method: Method = (
        "bilinear" if preprocessor.get("resample", _BILINEAR) == _BILINEAR else "bicubic"
    )
    return Input(
        None if size is None else int(size),
        mean,
        std,
        method,
        int(config.get("num_channels", 3)),
        crop_larger=_share(_transformers_crop(preprocessor, size)),
    )


def _transformers_crop(preprocessor: Config, size: Any) -> float | None:
    """ConvNeXt's processor, which ResNets have, too, crops below 384 pixels alone; others resize the
    shorter side to `size` and cut out `crop_size`."""
    if (share := preprocessor.get("crop_pct")) is not None:
        return float(share) if size is not None and int(size) < 384 else None
    whole, cut = (_side(preprocessor.get(name)) for name in ("size", "crop_size"))
    if not whole or not cut or preprocessor.get("do_center_crop") is False or cut > whole:
        return None
    return float(cut / whole)


def _side(size: Any) -> int | None:
    """224, {"height": 224, "width": 224} or {"shortest_edge": 224}."""
    if isinstance(size, Mapping):
        sides = {size[key] for key in ("height", "width", "shortest_edge") if key in size}
        if len(sides) > 1:
            raise ValueError(f"images of {sorted(sides)}; square ones are expected")
        return next(iter(sides), None)
    return size


def _transformers_classes(config: Config) -> tuple[str, ...]:
    names = config.get("id2label") or {}
    return tuple(str(names[key]) for key in sorted(names, key=int))
