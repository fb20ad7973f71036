"""`sfumato data`: its commands."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from sfumato.cli.data_check import Check
from sfumato.cli.data_info import Info
from sfumato.cli.data_list import List
from sfumato.cli.data_pack import PackImages
from sfumato.cli.data_unpack import UnpackImages

NAMES = ("list", "info", "check", "pack", "unpack")


@dataclass(frozen=True)
class DataSets:
    """Data sets: what there is by name, what is on this machine, which images cannot be decoded,
    and images as records that are read at random."""

    what: tyro.conf.OmitSubcommandPrefixes[
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Check, tyro.conf.subcommand("check")]
        | Annotated[PackImages, tyro.conf.subcommand("pack")]
        | Annotated[UnpackImages, tyro.conf.subcommand("unpack")]
    ]

    def __call__(self) -> None:
        self.what()
