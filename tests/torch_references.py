"""Reference networks in torch, for the tests of parity. Import it only where torch and timm are
installed.

timm imports torchvision, of which it uses nothing in a forward pass; where torchvision is absent,
empty classes stand in.
"""

import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

_INTERPOLATIONS = (
    "NEAREST",
    "BOX",
    "BILINEAR",
    "HAMMING",
    "BICUBIC",
    "LANCZOS",
)  # which timm reads of one class


class _Absent(types.ModuleType):
    """Any name is an empty class: enough to inherit from and to compare types with."""

    __path__: tuple[str, ...] = ()

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        inner = sys.modules.get(f"{self.__name__}.{name}")
        setattr(self, name, inner or type(name, (), {each: each for each in _INTERPOLATIONS}))
        return vars(self)[name]


_PARTS = [
    "torchvision" + part
    for part in ("", ".datasets", ".ops", ".ops.misc", ".transforms", ".transforms.functional")
]
_absent = importlib.util.find_spec("torchvision") is None
if _absent:
    sys.modules |= {part: _Absent(part) for part in _PARTS}
import timm  # noqa: E402

if _absent:  # transformers, too, asks for torchvision, and can do without
    for part in _PARTS:
        del sys.modules[part]

torch.set_num_threads(2)


def randomize(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """The network in eval mode, with no parameter or statistic trivially 0 or 1, and signals of
    ordinary size."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            if parameter.ndim > 1 and parameter[0].numel() > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:  # gains, scales, shifts, biases: around what they were
                parameter.add_(0.2 * noise)
        for name, statistic in network.named_buffers():
            if name.endswith("running_mean"):
                statistic.copy_(0.3 * torch.randn(statistic.shape, generator=draw))
            elif name.endswith("running_var"):
                statistic.copy_(0.5 + torch.rand(statistic.shape, generator=draw))
    return network.float().eval()


def timm_model(name: str, seed: int = 0, **options: object) -> torch.nn.Module:
    """timm's network of that name in eval mode, its parameters and statistics random. options as
    for `timm.create_model`."""
    return randomize(timm.create_model(name, pretrained=False, **options), seed)


def timm_shapes(name: str, **options: object) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all arrays of timm's network, without making it."""
    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False, **options)
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def timm_config(name: str) -> dict[str, object]:
    """timm's input_size, mean, std, interpolation for the weights that the name stands for."""
    return timm.get_pretrained_cfg(name).to_dict()


def saved(network: torch.nn.Module, path: Path) -> dict[str, np.ndarray]:
    """The network's arrays, written as safetensors and read back by NumPy."""
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, path)
    return load_file(path)


def scores(network: torch.nn.Module, images: np.ndarray) -> np.ndarray:
    """(n, height, width, channels) -> what the torch network, which wants channels first, answers."""
    with torch.no_grad():
        return network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()


class Logits(torch.nn.Module):
    """A network of Hugging Face's that returns the scores alone; the arrays keep their names."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images).logits

    def state_dict(self, *_: object, **__: object) -> dict[str, torch.Tensor]:  # type: ignore[override]
        return self.network.state_dict()


def hugging_face_resnet(depth: int, seed: int = 0) -> torch.nn.Module:
    """The configuration of microsoft/resnet-{depth}, with random parameters and statistics."""
    from transformers import ResNetConfig, ResNetForImageClassification

    kind, widths = (
        ("bottleneck", [256, 512, 1024, 2048]) if depth >= 50 else ("basic", [64, 128, 256, 512])
    )
    depths = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3]}[depth]
    config = ResNetConfig(depths=depths, hidden_sizes=widths, layer_type=kind, num_labels=1000)
    return Logits(randomize(ResNetForImageClassification(config), seed))
