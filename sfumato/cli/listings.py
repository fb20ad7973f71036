"""Commands that list what there is: recipes, models."""

from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class Recipes:
    """Published results whose settings `sfumato train --recipe` follows, with their accuracies."""

    def __call__(self) -> None:
        from sfumato.plan import recipes

        print(recipes.listing())


@dataclass(frozen=True)
class Models:
    """The networks: parameters, cost of one image, resolution, public weights that fit."""

    name: tyro.conf.Positional[str | None] = None
    """Only this one, in more detail; a short name such as vit-b16 will do."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> None:
        from sfumato.cli import model_table

        print(model_table.show(self.name, self.json))
