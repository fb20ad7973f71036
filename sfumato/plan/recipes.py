"""Published results as settings: sfumato/recipes/*.toml, one per result, with the number it reached
beside it.

NAME            the recipe at its last epsilon
NAME:EPSILON    at one of its others
"""

import tomllib
from dataclasses import dataclass, fields, replace
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from sfumato.core.checks import probability
from sfumato.core.errors import ArgumentError
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
class Point:
    """One epsilon of a recipe. accuracy: test accuracy in percent as published, None if it is not
    known here. noise_multiplier: as published. settings: what differs from the recipe's own at this
    epsilon.
    """

    epsilon: float
    accuracy: float | None
    noise_multiplier: float | None
    settings: dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """source: where the numbers stand. recalled: some were written down from memory. assumed:
    settings not the paper's. delta: as published, or smaller where the published one is not below
    1/n. weights: what the public weights were learned from, None from scratch. settings: of
    `MethodConfig`.
    """

    name: str
    title: str
    paper: str
    source: str
    recalled: bool
    assumed: tuple[str, ...]
    delta: float
    published_delta: float
    data: Facts
    weights: str | None
    settings: dict[str, Any]
    points: tuple[Point, ...]

    def method(self, point: Point) -> MethodConfig:
        """The settings at one epsilon. `size` is among them only for public weights or where it is
        not the network's own."""
        return MethodConfig(**self.settings | point.settings)


def names() -> tuple[str, ...]:
    """All recipes, in order of the papers."""
    found = (entry.name for entry in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def load(name: str) -> Recipe:
    """Raises ArgumentError for a name that is not there."""
    if name not in names():
        raise ArgumentError("recipe", name, "no such recipe; `sfumato recipes` lists them")
    content = tomllib.loads((_folder() / f"{name}.toml").read_text("utf-8"))
    data, weights = content["data"], content.get("weights")
    settings = content["method"] | ({} if weights is None else {"size": weights["size"]})
    delta, facts = content["delta"], Facts(**data | {"shape": tuple(data["shape"])})
    told = {name: content[name] for name in ("title", "paper", "source", "recalled")}
    return Recipe(
        name=name,
        **told,
        assumed=tuple(content.get("assumed", ())),
        delta=delta,
        data=facts,
        settings=settings,
        published_delta=content.get("published_delta", delta),
        weights=None if weights is None else weights["learned_from"],
        points=tuple(_point(each) for each in content["point"]),
    )


def _folder() -> Traversable:
    return resources.files("sfumato") / "recipes"


def _point(content: dict[str, Any]) -> Point:
    rest = {
        name: value
        for name, value in content.items()
        if name not in ("epsilon", "accuracy", "noise_multiplier")
    }
    return Point(
        float(content["epsilon"]), content.get("accuracy"), content.get("noise_multiplier"), rest
    )


def find(text: str) -> tuple[Recipe, Point]:
    """ "NAME" or "NAME:EPSILON". Raises ArgumentError."""
    name, _, epsilon = text.partition(":")
    recipe = load(name)
    if not epsilon:
        return recipe, recipe.points[-1]
    for point in recipe.points:
        if f"{point.epsilon:g}" == epsilon:
            return recipe, point
    known = ", ".join(f"{point.epsilon:g}" for point in recipe.points)
    raise ArgumentError(
        "recipe", text, f"it has epsilon {known}; write {name}:{recipe.points[-1].epsilon:g}"
    )


def listing() -> str:
    """For `sfumato recipes`: every recipe with its published accuracies."""
    blocks = []
    for recipe in map(load, names()):
        numbers = ", ".join(
            f"{point.epsilon:g}: {'?' if point.accuracy is None else f'{point.accuracy:g} %'}"
            for point in recipe.points
        )
        lines = [
            recipe.name,
            f"  {recipe.title}",
            f"  published by epsilon, delta {recipe.published_delta:g}: {numbers}",
            f"  {recipe.paper}; {recipe.source}",
        ]
        if recipe.recalled:
            lines.append("  from memory in part: see the comments in the file before you quote it")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def configured(recipe: Recipe, point: Point, given: TrainConfig) -> TrainConfig:
    """The recipe as a configuration; what the user gave goes before it. Raises ArgumentError for an
    epsilon or delta."""
    for name in ("epsilon", "delta"):
        if (value := getattr(given.privacy, name)) is not None:
            raise ArgumentError(
                name,
                value,
                f"a recipe brings its own; choose among them by --recipe {recipe.name}:EPSILON",
            )
    own = recipe.method(point)
    chosen = {
        each.name: value
        for each in fields(MethodConfig)
        if (value := getattr(given.method, each.name)) not in (None, "auto")
    }
    data = given.data if given.data.data else replace(given.data, data=recipe.data.name)
    privacy = replace(given.privacy, epsilon=point.epsilon, delta=recipe.delta)
    return replace(given, data=data, privacy=privacy, method=replace(own, **chosen))


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
    if method.batch is not None:
        batch = max(1, round(method.batch * n / recipe.data.n))
        told.append(f"batch {method.batch:,} -> {batch:,} (the same sampling rate q)")
        method = replace(method, batch=batch)
    if method.steps is not None:
        steps = max(min(SMALLEST_STEPS, method.steps), round(scale * method.steps))
        told.append(f"steps {method.steps:,} -> {steps:,}")
        method = replace(method, steps=steps)
    return replace(
        config, method=method
    ), f"scaled by {scale:g}: {', '.join(told)}; noise calibrated anew for the same epsilon"
