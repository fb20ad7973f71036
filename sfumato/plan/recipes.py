"""Published results as settings: sfumato/recipes/*.toml, one per result, with the number it reached
beside it.

NAME            the recipe at its last epsilon
NAME:EPSILON    at one of its others
FILE.toml       one's own, in the same format (also FILE.toml:EPSILON)
"""

import tomllib
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from sfumato.core import typed_json
from sfumato.core.checks import probability
from sfumato.core.errors import ArgumentError
from sfumato.core.typed_json import INFINITY, SECTION, Damaged
from sfumato.plan.config import MethodConfig, TrainConfig

SMALLEST_STEPS = 10
"""`--scale` leaves at least so many steps (or all, if there are fewer)."""


@dataclass(frozen=True)
class Facts:
    """What is published of the data: name, training and test images, shape of an image as trained
    on, number of classes."""

    name: str
    n: int
    test: int
    shape: tuple[int, int, int]
    classes: int


@dataclass(frozen=True)
class RecipeWeights:
    """What the public weights were learned from, and the side of the images their network sees."""

    learned_from: str
    size: int


@dataclass(frozen=True)
class Point:
    """One epsilon of a recipe. accuracy: test accuracy in percent as published, None if it is not
    known here. noise_multiplier: as published. settings: what differs from the recipe's own at this
    epsilon.
    """

    epsilon: float
    accuracy: float | None = None
    noise_multiplier: float | None = None
    settings: MethodConfig = field(default=MethodConfig(), metadata=SECTION)


@dataclass(frozen=True)
class Recipe:
    """source: where the numbers stand. recalled: some were written down from memory. assumed:
    settings not the paper's. delta: as published, or smaller where the published one is not below
    1/n. weights: None from scratch. method: the settings.
    """

    title: str
    delta: float
    data: Facts
    method: MethodConfig
    point: tuple[Point, ...]
    name: str = ""
    paper: str = "not published"
    source: str = "one's own"
    recalled: bool = False
    assumed: tuple[str, ...] = ()
    published_delta: float | None = None
    weights: RecipeWeights | None = None

    @property
    def delta_as_published(self) -> float:
        return self.delta if self.published_delta is None else self.published_delta

    def at(self, point: Point) -> MethodConfig:
        """The settings at one epsilon. `size` is among them only for public weights or where it is
        not the network's own."""
        own = self.method
        if self.weights is not None:
            own = replace(own, size=self.weights.size)
        return over(own, point.settings)


def over(own: MethodConfig, given: MethodConfig) -> MethodConfig:
    """own, but for what is given."""
    values = {each.name: getattr(given, each.name) for each in fields(MethodConfig)}
    told = {name: value for name, value in values.items() if value not in (None, "auto")}
    return replace(own, **{name: value for name, value in told.items() if value is not False})


def names() -> tuple[str, ...]:
    """All recipes, in order of the papers."""
    found = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def load(name: str) -> Recipe:
    """A published one by its name, or one's own by the path of its file. Raises ArgumentError."""
    own = Path(name).expanduser()
    if own.suffix == ".toml":
        return _read(own, name, own.stem)
    if name not in names():
        raise ArgumentError(
            "recipe", name, "no such recipe; `sfumato recipes` lists them, or give a .toml file"
        )
    return _read(_folder() / f"{name}.toml", name, name)


def _read(file: Traversable | Path, asked: str, name: str) -> Recipe:
    try:
        content = tomllib.loads(file.read_text("utf-8"))
        recipe: Recipe = typed_json.convert(Recipe, content, closed=True)
        if not recipe.point:
            raise Damaged("point must not be empty")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, Damaged) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise ArgumentError(
            "recipe", asked, f"{told}; a recipe is written as those of sfumato/recipes"
        ) from None
    return replace(recipe, name=name)


def _folder() -> Traversable:
    return resources.files("sfumato") / "recipes"


def find(text: str) -> tuple[Recipe, Point]:
    """ "NAME" or "NAME:EPSILON". Raises ArgumentError."""
    name, _, epsilon = text.partition(":")
    recipe = load(name)
    if not epsilon:
        return recipe, recipe.point[-1]
    for point in recipe.point:
        if f"{point.epsilon:g}" == epsilon:
            return recipe, point
    known = ", ".join(f"{point.epsilon:g}" for point in recipe.point)
    raise ArgumentError(
        "recipe", text, f"it has epsilon {known}; write {name}:{recipe.point[-1].epsilon:g}"
    )


def listing() -> str:
    """For `sfumato recipes`: every recipe with its published accuracies."""
    blocks = []
    for recipe in map(load, names()):
        numbers = ", ".join(
            f"{point.epsilon:g}: {'?' if point.accuracy is None else f'{point.accuracy:g} %'}"
            for point in recipe.point
        )
        lines = [
            recipe.name,
            f"  {recipe.title}",
            f"  published by epsilon, delta {recipe.delta_as_published:g}: {numbers}",
            f"  {recipe.paper}; {recipe.source}",
        ]
        if recipe.recalled:
            lines.append("  from memory in part: see the comments in the file before you quote it")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def configured(recipe: Recipe, point: Point, given: TrainConfig) -> TrainConfig:
    """The recipe as a configuration; what the user gave goes before it. Raises ArgumentError for an
    epsilon (but inf) or delta."""
    for name in ("epsilon", "delta"):
        if (value := getattr(given.privacy, name)) not in (None, INFINITY):
            raise ArgumentError(
                name,
                value,
                f"a recipe brings its own; choose among them by --recipe {recipe.name}:EPSILON",
            )
    data = given.data if given.data.data else replace(given.data, data=recipe.data.name)
    epsilon = given.privacy.epsilon or point.epsilon
    privacy = replace(given.privacy, epsilon=epsilon, delta=recipe.delta)
    return replace(given, data=data, privacy=privacy, method=over(recipe.at(point), given.method))


def share_of(recipe: Recipe, scale: float, n: int) -> float:
    """The share of n training images that makes scale times as many as the recipe has (or all, if
    there are fewer)."""
    return min(1.0, probability("scale", scale) * recipe.data.n / n)


def scaled(recipe: Recipe, config: TrainConfig, scale: float, n: int) -> tuple[TrainConfig, str]:
    """(the configuration for n training images, what was scaled). The sampling rate q stays, so B =
    q n; T steps become scale T; the noise is calibrated anew for the same epsilon. Nothing else
    changes but the memory that is needed.
    """
    method, told = config.method, [f"{recipe.data.n:,} -> {n:,} images"]
    scaled: dict[str, Any] = {}
    if method.batch is not None:
        scaled["batch"] = max(1, round(method.batch * n / recipe.data.n))
        told.append(f"batch {method.batch:,} -> {scaled['batch']:,} (the same sampling rate q)")
    if method.steps is not None:
        scaled["steps"] = max(min(SMALLEST_STEPS, method.steps), round(scale * method.steps))
        told.append(f"steps {method.steps:,} -> {scaled['steps']:,}")
    return replace(
        config, method=replace(method, **scaled)
    ), f"scaled by {scale:g}: {', '.join(told)}; noise calibrated anew for the same epsilon"
