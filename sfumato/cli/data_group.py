"""`sfumato data`: its commands."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from sfumato.cli.data_check import Check
from sfumato.cli.data_info import Info
from sfumato.cli.data_list import List

NAMES = ("list", "info", "check")


@dataclass(frozen=True)
class DataSets:
    """Data sets: what there is by name, what is on this machine, which images cannot be decoded."""

    what: tyro.conf.OmitSubcommandPrefixes[
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Check, tyro.conf.subcommand("check")]
    ]

    def __call__(self) -> None:
        self.what()
