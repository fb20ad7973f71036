"""Commands that list what there is: recipes, data, models."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from sfumato.cli.pack import PackData, UnpackData
from sfumato.core.checks import MAX_PIXELS


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
        from sfumato.cli import datasets

        datasets.list_data()


@dataclass(frozen=True)
class Info:
    """What is known of a data set without decoding an image."""

    data: tyro.conf.Positional[str]
    """A name (`sfumato data list`), a folder, a file, or anything else `sfumato train` reads."""
    data_dir: Path | None = None
    """Where named data sets lie [$SFUMATO_DATA, or the user's cache]."""
    label: str | None = None
    """Column of the labels, as for `sfumato train`."""
    path: str | None = None
    """Column of the images or of their paths."""
    split: str | None = None
    """Column that says train, val or test."""
    unit: str | None = None
    """Count units too: a regular expression on file names or a column, as for `sfumato train`."""
    max_pixels: int = MAX_PIXELS
    """Largest image file that is decoded, width times height."""

    def __call__(self) -> None:
        from sfumato.cli import datasets

        datasets.data_info(
            self.data,
            self.data_dir,
            unit=self.unit,
            max_pixels=self.max_pixels,
            label=self.label,
            path=self.path,
            split=self.split,
        )


@dataclass(frozen=True)
class DataSets:
    """Named data sets: what there is, and what is on this machine."""

    what: tyro.conf.OmitSubcommandPrefixes[
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[PackData, tyro.conf.subcommand("pack")]
        | Annotated[UnpackData, tyro.conf.subcommand("unpack")]
    ]

    def __call__(self) -> None:
        self.what()


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
