"""`sfumato recipes`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipes:
    """Published results whose settings `sfumato train --recipe` follows, with their accuracies."""

    def __call__(self) -> None:
        from sfumato.plan import recipes

        print(recipes.listing())
