"""Torch twins of two networks, and Opacus's gradient step on them.

The wide residual network has plain convolutions: Opacus knows no weight-standardized ones. That
spares it work.
"""

import warnings
from collections.abc import Callable

import torch
from opacus.grad_sample.utils import wrap_model
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional as F

Step = Callable[[], list[Tensor]]
warnings.filterwarnings(
    "ignore", message="Full backward hook is firing"
)  # true of any first layer; nothing to do about it


def use_threads(count: int) -> None:
    torch.set_num_threads(count)


class NormConv(nn.Module):
    """ReLU -> GroupNorm(16) -> convolution."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1):
        super().__init__()
        self.norm = nn.GroupNorm(16, inputs)
        self.conv = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2)

    def forward(self, maps: Tensor) -> Tensor:
        return self.conv(self.norm(F.relu(maps)))


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, opens_stage: bool):
        super().__init__()
        self.first = NormConv(inputs, outputs, 3, stride)
        self.second = NormConv(outputs, outputs, 3)
        self.skip = NormConv(inputs, outputs, 1, stride) if opens_stage else None

    def forward(self, maps: Tensor) -> Tensor:
        skipped = maps if self.skip is None else self.skip(maps)
        return self.second(self.first(maps)) + skipped


class WideResNet(nn.Module):
    """WRN-16-4 as in sfumato/networks/wrn.py, but for weight standardization."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        blocks, inputs = [], 16
        for stage in range(3):
            outputs = 64 * 2**stage
            for index in range(2):
                blocks.append(Block(inputs, outputs, 2 if stage and not index else 1, index == 0))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.GroupNorm(16, inputs)
        self.head = nn.Linear(inputs, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(
            self.norm(F.relu(self.blocks(self.stem((images - 0.5) / 0.25)))).mean((2, 3))
        )


class Layer(nn.Module):
    """Attention and a two-layer perceptron; all parameters are in Linear and LayerNorm, which every
    mode supports."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length, width = tokens.shape
        q, k, v = (
            self.qkv(self.norm1(tokens))
            .reshape(batch, length, 3, self.heads, -1)
            .permute(2, 0, 3, 1, 4)
        )
        mixed = (
            F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        )
        tokens = tokens + self.out(mixed)
        return tokens + self.down(F.gelu(self.up(self.norm2(tokens)), approximate="tanh"))


class VisionTransformer(nn.Module):
    """ViT-S/16 as in models.py. Positions are an Embedding, because Opacus has no rule for a bare
    parameter."""

    def __init__(
        self,
        width: int = 384,
        heads: int = 6,
        depth: int = 12,
        side: int = 224,
        classes: int = 1000,
    ):
        super().__init__()
        patch = 16
        self.patch = patch
        self.patches = nn.Linear(3 * patch * patch, width)
        self.positions = nn.Embedding((side // patch) ** 2 + 1, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        cells = F.unfold((images - 0.5) / 0.25, self.patch, stride=self.patch).transpose(1, 2)
        tokens = F.pad(self.patches(cells), (0, 0, 1, 0))
        index = torch.arange(tokens.shape[1]).repeat(tokens.shape[0], 1)
        return self.head(self.norm(self.layers(tokens + self.positions(index)))[:, 0])


NETWORKS = {"wrn": WideResNet, "vit": VisionTransformer}


class Twin:
    """A network and a batch of random images; every step starts from a fresh copy of the network."""

    def __init__(self, name: str, shape: tuple[int, ...], batch: int):
        torch.manual_seed(0)
        self.network = NETWORKS[name]
        self.images = torch.rand(batch, shape[2], *shape[:2])
        self.labels = torch.randint(10, (batch,))

    def ordinary(self) -> Step:
        model = self.network()

        def step() -> list[Tensor]:
            F.cross_entropy(model(self.images), self.labels).backward()
            return _take(model)

        return step

    def clipped(self, mode: str, clip_norm: float) -> Step:
        """Forward, backward, clip and sum; no noise. mode: "hooks", "ew" (expanded weights) or
        "ghost"."""
        kwargs = {"max_grad_norm": clip_norm} if mode == "ghost" else {}
        model = wrap_model(self.network(), mode, loss_reduction="sum", **kwargs).train()
        kind = DPOptimizerFastGradientClipping if mode == "ghost" else DPOptimizer
        optimizer = kind(
            torch.optim.SGD(model.parameters(), lr=0.0),
            noise_multiplier=0.0,
            max_grad_norm=clip_norm,
            expected_batch_size=len(self.labels),
            loss_reduction="sum",
        )
        criterion = nn.CrossEntropyLoss(reduction="sum")
        if mode == "ghost":
            criterion = DPLossFastGradientClipping(
                model, optimizer, criterion, loss_reduction="sum"
            )

        def step() -> list[Tensor]:
            criterion(model(self.images), self.labels).backward()
            optimizer.clip_and_accumulate()  # does nothing in ghost mode, where backward has clipped
            sums = _take(model) if mode == "ghost" else [p.summed_grad for p in model.parameters()]
            optimizer.zero_grad(set_to_none=True)
            return sums

        return step


def _take(model: nn.Module) -> list[Tensor]:
    gradients = [p.grad for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    return gradients
