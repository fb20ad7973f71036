"""Arguments -> the command they name."""

import contextlib
import io
import sys
from collections.abc import Callable
from typing import Annotated

import tyro

from sfumato.cli.finished import Account, Audit, Calibrate, Evaluate, Predict, Report
from sfumato.cli.heads import Features, Fit, Sweep, Tune
from sfumato.cli.listings import Data, Models, Recipes
from sfumato.cli.train import Pretrain, Resume, Train

Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Recipes, tyro.conf.subcommand("recipes")]
    | Annotated[Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[Features, tyro.conf.subcommand("features")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Tune, tyro.conf.subcommand("tune")]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Audit, tyro.conf.subcommand("audit")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Account, tyro.conf.subcommand("account")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Models, tyro.conf.subcommand("models")]
)


_ABOUT = "Differentially private image classification: from a folder of images to a private model and a report."


def parse(arguments: list[str]) -> Callable[[], None]:
    """The command. What the parser says of wrong arguments, in a box over many lines, becomes one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(Command, prog="sfumato", description=_ABOUT, args=arguments, config=(tyro.conf.DisallowNone,))
    except SystemExit as end:
        if end.code in (None, 0):
            raise
        words = " ".join(line.strip("│╭╮╰╯─ ") for line in said.getvalue().splitlines())
        problem = words.removeprefix("Parsing error").removeprefix("Required options").split("For full helptext")[0]
        where = " ".join(["sfumato", *(word for word in arguments[:1] if not word.startswith("-")), "--help"])
        print(f"sfumato: {' '.join(problem.split())} (see `{where}`)", file=sys.stderr)
        sys.exit(2)
