"""How DP-SGD is run when the user does not say: published settings, as functions of public facts."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from sfumato import augment
from sfumato.core.checks import AUTO, fraction, positive, whole, whole_or_auto
from sfumato.core.errors import ArgumentError
from sfumato.core.precision import HELP, PRECISIONS, usual
from sfumato.core.settings import flag
from sfumato.core.typed_json import OR_INFINITY
from sfumato.privacy import calibration
from sfumato.privacy.events import Event
from sfumato.privacy.releases import Release
from sfumato.privacy.terms import Budget
from sfumato.sampling import SAMPLERS
from sfumato.solve.method_settings import MethodSettings
from sfumato.solve.optimizers import OPTIMIZERS
from sfumato.train.schedules import SHAPES, decayed, rate_of

if TYPE_CHECKING:
    import optax


@dataclass(frozen=True)
class SGDSettings(MethodSettings):
    """batch: expected batch size B. steps: T. views: augmented views per example, 0 for the image
    as it is. augment: what a view is, by the names of `augment.AUGMENTATIONS`. ema: largest decay of the averaged parameters, 0 for none. physical_batch_size:
    examples on the device at once, or "auto" (`train/physical.py`). optimizer: a name of `OPTIMIZERS`; momentum is Adam's and LAMB's
    first decay, too. precision: a name of `PRECISIONS`, of a network; it stands in the plan, so that a
    run goes on in it whatever the default is where it goes on. schedule, warmup, weight_decay: see
    `train/schedules.py`.
    """

    method: ClassVar[str] = "dp-sgd"
    what: ClassVar[str] = "a network from end to end, or a head on fixed features"
    needs: ClassVar[str] = "network"
    also: ClassVar[tuple[str, ...]] = ("sampler", *SAMPLERS.flags, "noise_bands")

    batch: int = flag("Expected batch size [heads on features: all examples].", whole)
    steps: int = flag("Number of steps.", whole)
    learning_rate: float = flag("Of a step; see --schedule.", positive)
    momentum: float = flag("0 is none; the first decay of Adam and LAMB, too.", fraction)
    clip_norm: Annotated[float, OR_INFINITY] = flag(
        "Largest L2 norm of one example's gradient.", positive
    )
    views: int = flag(
        "Augmented views of an example per step (0: the image as it is).",
        lambda name, value: whole(name, value, at_least=0),
    )
    ema: float = flag(
        "Decay of the averaged parameters, which become the model (0: none).", fraction
    )
    physical_batch_size: Literal["auto"] | int = flag(
        "Examples on the device at once, or auto: as many as fit and a batch needs; bounds memory, does not change the "
        "result. [auto]",
        whole_or_auto,
        default=AUTO,
    )
    optimizer: str = flag("[sgd]", choices=OPTIMIZERS, default="sgd")
    augment: str = flag(
        f"What a view is, several with + between: {augment.AUGMENTATIONS.help} | none [shift].",
        lambda name, value: augment.parse(value),
        default=augment.DEFAULT,
    )
    precision: str = flag(
        f"{HELP} [bf16 on accelerators, float32 on CPUs].", choices=PRECISIONS, default="float32"
    )
    schedule: str = flag(
        "The learning rate over the steps; costs no privacy. [constant]",
        choices=SHAPES,
        default="constant",
    )
    warmup: float = flag(
        "Share of the steps in which the learning rate rises [0].", fraction, default=0.0
    )
    weight_decay: float = flag(
        "Of kernels and matrices: in each step this share of them, times the learning rate, is taken "
        "away [0].",
        fraction,
        default=0.0,
    )

    @classmethod
    def default_model(cls, n: int, shape: tuple[int, int, int]) -> str:
        return "cnn"

    @classmethod
    def ruled(cls, budget: Budget) -> "SGDSettings":
        """What the user left open."""
        return default_settings(budget.kind, budget.n, budget.epsilon, budget.mu)

    def given(self, asked: dict[str, Any], n: int) -> "SGDSettings":
        """With what the user gave; the full batch is a batch of everybody."""
        own = {name: value for name, value in asked.items() if name not in self.also}
        sampler = asked.get("sampler")
        everybody = sampler is not None and not SAMPLERS[sampler].secret
        return self.adjusted(**({"batch": n} if everybody else {}) | own)

    def lines(self, trains: bool) -> list[tuple[str, str]]:
        if not trains or not self.views:
            return []
        return [("views", f"{self.views} of an image: {augment.words(self.augment)}")]

    def computed(self, asked: str | None, trains: bool, platform: str) -> "SGDSettings":
        if not trains and asked is not None:
            raise ArgumentError(
                "precision",
                asked,
                "is about a network that is trained; heads on features compute in float32, so leave it out",
            )
        return replace(self, precision=asked or usual(platform)) if trains else self

    def batch_of(self, n: int) -> int:
        return self.batch

    def paid(self, budget: Budget, sampled: Callable[[float], Event]) -> tuple[Release, ...]:
        """The gradients, with the least noise that keeps the budget. sampled: noise multiplier ->
        what the first of them is."""

        def gradient(sigma: float) -> Release:
            what = "the sum of the clipped gradients of a random batch of training images"
            return Release("gradient", self.steps, sampled(sigma), what)

        sigma = calibration.noise_multiplier(
            lambda s: gradient(s).tally, budget.epsilon, budget.delta, budget.relation
        )
        return (gradient(sigma),)

    @property
    def momentum_of_sums(self) -> float:
        """With which sums of released gradients become parameters. Adam and LAMB rescale theirs, so
        no fixed one fits; 0 is that of plain sums."""
        return self.momentum if OPTIMIZERS[self.optimizer].rate is None else 0.0

    def transformation(self) -> "optax.GradientTransformation":
        """The optimizer. What it does to a released sum is post-processing."""
        rate = rate_of(self.schedule, self.learning_rate, self.warmup, self.steps)
        made = OPTIMIZERS[self.optimizer].make(rate, self.momentum)
        return decayed(made, rate, self.weight_decay)

    def adjusted(self, **given: Any) -> "SGDSettings":
        """With what the user gave; a learning rate that was left open follows the optimizer.

        A batch that is given without steps keeps the number of passes: fewer steps for larger
        batches, and a learning rate in proportion to the batch (Goyal et al. 2017; for DP-SGD
        Kurakin et al. 2022, Sec. 4), to its square root for Adam and LAMB (You et al. 2020).
        """
        optimizer = given.get("optimizer", self.optimizer)
        own = self if optimizer == self.optimizer else self._under(optimizer)
        if "batch" in given and "steps" not in given:
            ratio = given["batch"] / own.batch
            root = OPTIMIZERS[optimizer].rate is not None
            rate = own.learning_rate * (ratio**0.5 if root else ratio)
            own = replace(own, steps=max(1, round(own.steps / ratio)), learning_rate=rate)
        return replace(own, **given | _with_views(own.views, given))

    def _under(self, optimizer: str) -> "SGDSettings":
        """Momentum 0.9 takes ten steps in one, so a tenth of the rate. Adam's and LAMB's steps do
        not depend on the gradient's scale; their rates are customary ones.
        """
        rate = OPTIMIZERS[optimizer].rate
        if rate is None:
            rate = self.learning_rate * (1 - _MOMENTUM) / (1 - self.momentum)
        return replace(self, optimizer=optimizer, momentum=_MOMENTUM, learning_rate=rate)


_MOMENTUM = 0.9


def _with_views(views: int, given: dict[str, Any]) -> dict[str, Any]:
    """An augmentation that was asked for has a view to show it in, or as many as it takes. Raises
    ArgumentError for another number."""
    names = given.get("augment")
    if names is None:
        return {}
    least = augment.least_views(names)
    if least == 0:
        views = 0
    found = given.get("views", max(views, least))
    if found < least or (least == 0 and found > 0):
        asked = f"at least {least}" if least else "no"
        raise ArgumentError(
            "views", found, f"--augment {names} takes {asked} views; leave the number out"
        )
    return {"views": found}


def default_settings(kind: str, n: int, epsilon: float, mu: float) -> SGDSettings:
    """kind: what is trained, "features" (a linear model on them), "cnn", "network" or "fine-tuning"
    (a network with public weights). n examples, a budget of epsilon; mu: the Gaussian budget of the
    same (epsilon, delta), a smooth measure of it.
    """
    match kind:
        case "features":
            return _on_features(n, mu)
        case "cnn":
            own = _small(n)
        case "fine-tuning":
            own = _fine_tuning(n)
        case _:
            own = _wide_resnet(n, epsilon)
    return replace(own, learning_rate=min(own.learning_rate, _LOUDEST * n * mu / own.steps))


_LOUDEST = 0.18
"""T steps of a learning rate r and batches of B, whose noise has multiplier s, move each parameter by a
random walk of deviation r s sqrt(T) / B, and s is about sqrt(T) B / (n mu): r T / (n mu). The settings that
De et al. published lie at 0.11 to 0.18. The small network with 1,164 digits at epsilon = 1 has 63.6 % of
others right at 0.12, 60.8 at 0.24, 45 at 0.4 and no more than chance at 2 (`benchmarks/RESULTS.md`)."""


def _on_features(n: int, mu: float) -> SGDSettings:
    """Tramèr & Boneh 2021 (arXiv 2011.11660), linear model on features: one sixth of the data per
    step, momentum.

    The clip is so small that it always binds, i.e. every example votes with a unit vector. T steps
    of noise then add up to a standard deviation of about lr / (1 - momentum) * T / (n mu) per score
    for rows of norm 1; holding that at 8 fits the learning rates that were best on held-out images
    over epsilon = 0.1 to 8.
    """
    batch, momentum = _at_most(8192, n // 6), 0.9
    steps = 292
    rate = min(8 * (1 - momentum) * n * mu / steps, 200.0)
    return SGDSettings(batch, steps, rate, momentum, 0.0016, views=0, ema=0.0)


def _small(n: int) -> SGDSettings:
    """For the tanh network of Papernot et al. 2021: their 2,048 examples a step and about 40
    passes."""
    batch = _at_most(2048, n // 8)
    return SGDSettings(batch, max(1, 40 * n // batch), 2.0, 0.0, 0.1, views=0, ema=0.999)


def _wide_resnet(n: int, epsilon: float) -> SGDSettings:
    """De et al. 2022, App. C: B=4096, K=16, normalized clipping at C=1, no momentum, EMA 0.9999,
    constant learning rate.

    Steps as published for epsilon = 1, 2, 3, 4, 6, 8 on 50,000 images, in between by interpolation;
    learning rate 2 at epsilon = 1, as in the authors' configuration, and 4 from 2 on.
    """
    published = [(1, 875), (2, 1125), (3, 1593), (4, 1687), (6, 1843), (8, 2468)]
    steps = _interpolate(math.log(epsilon), [(math.log(e), t) for e, t in published])
    rate = _interpolate(math.log(epsilon), [(0.0, 2.0), (math.log(2), 4.0)])
    return SGDSettings(_at_most(4096, n // 8), round(steps), rate, 0.0, 1.0, views=16, ema=0.9999)


def _fine_tuning(n: int) -> SGDSettings:
    """De et al. 2022, in the authors' configuration of a WRN-28-10 on CIFAR: a third of the images
    per step (16,384 of 50,000), 250 steps, learning rate 1, 16 views; the new head starts at zero
    (Mehta et al. 2022, Sec. 4).
    """
    return SGDSettings(_at_most(16_384, n // 3), 250, 1.0, 0.0, 1.0, views=16, ema=0.9999)


def _at_most(limit: int, value: int) -> int:
    return max(1, min(limit, value))


def _interpolate(x: float, points: list[tuple[float, float]]) -> float:
    """Piecewise linear, constant beyond the ends."""
    if x <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]
