"""Commands that list what there is: recipes, data, models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sfumato.core import plugins


@dataclass(frozen=True)
class Recipes:
    """Published results whose settings `sfumato train --recipe` follows, with their accuracies."""

    def __call__(self) -> None:
        from sfumato.plan import recipes

        print(recipes.listing())


@dataclass(frozen=True)
class List:
    """The named data sets."""

    def __call__(self) -> None:
        from sfumato.cli import commands

        commands.list_data()


@dataclass(frozen=True)
class Info:
    """What is known of a data set without decoding an image."""

    data: tyro.conf.Positional[str]
    data_dir: Path | None = None
    unit: str | None = None
    """Count units too: a regular expression on file names or a column, as for `sfumato train`."""

    def __call__(self) -> None:
        from sfumato.cli import commands

        plugins.allow(self.data)
        commands.data_info(self.data, self.data_dir, self.unit)


@dataclass(frozen=True)
class Data:
    """Named data sets: what there is, and what is on this machine."""

    what: tyro.conf.OmitSubcommandPrefixes[
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Info, tyro.conf.subcommand("info")]
    ]

    def __call__(self) -> None:
        self.what()


@dataclass(frozen=True)
class Models:
    """The networks: parameters, cost of one image, resolution, public weights that fit."""

    name: tyro.conf.Positional[str | None] = None
    """Only this one, in more detail."""
    json: bool = False

    def __call__(self) -> None:
        from sfumato.cli import model_table

        print(model_table.show(self.name, self.json))
