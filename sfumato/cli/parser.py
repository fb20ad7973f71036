"""Arguments -> the command they name."""

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from sfumato import __version__
from sfumato.cli.data_group import NAMES as OF_DATA
from sfumato.cli.data_group import DataSets
from sfumato.cli.features import Features
from sfumato.cli.finished import Account, Audit, Calibrate, Evaluate, Predict, Report
from sfumato.cli.fit import Fit
from sfumato.cli.listings import Models, Recipes
from sfumato.cli.pretrain import Pretrain
from sfumato.cli.refusals import in_one_line, no_command
from sfumato.cli.resume import Resume
from sfumato.cli.sweep import Sweep
from sfumato.cli.train import Train
from sfumato.cli.tune import Tune
from sfumato.core.typed_json import OLD_NAMES
from sfumato.plan.config import asked_in
from sfumato.plan.methods import ROWS, table


def _described(command: type, methods: str) -> str:
    """A command's help, with the methods that it has."""
    return f"{command.__doc__}\n\nMethods, and their flags:\n\n{methods}"


Command = (
    Annotated[Train, tyro.conf.subcommand("train", description=_described(Train, table()))]
    | Annotated[Recipes, tyro.conf.subcommand("recipes")]
    | Annotated[Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[Features, tyro.conf.subcommand("features")]
    | Annotated[Fit, tyro.conf.subcommand("fit", description=_described(Fit, table(ROWS)))]
    | Annotated[Sweep, tyro.conf.subcommand("sweep", description=_described(Sweep, table(ROWS)))]
    | Annotated[
        Tune, tyro.conf.subcommand("tune", description=_described(Tune, table(ROWS, flagged=False)))
    ]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Audit, tyro.conf.subcommand("audit")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Account, tyro.conf.subcommand("account")]
    | Annotated[DataSets, tyro.conf.subcommand("data")]
    | Annotated[Models, tyro.conf.subcommand("models")]
)

_NAMES = tuple(each.__metadata__[0].name for each in get_args(Command))
_CONFIG = (
    tyro.conf.DisallowNone,
    tyro.conf.FlagCreatePairsOff,
    tyro.conf.PositionalMetavarFromFieldName,
)
"""None is no word to type; a flag has no --no-flag beside it, as none is on by default; a place is
called by its name."""
_ABOUT = "Differentially private image classification: from a folder of images to a private model and a report."


def parse(arguments: list[str]) -> Callable[[], None]:
    """The command. What the parser says of wrong arguments, in a box over many lines, becomes one
    line."""
    if arguments == ["--version"]:
        return lambda: print(f"sfumato {__version__}")
    said, arguments = io.StringIO(), [_as_called_today(word) for word in arguments]
    default = _from_file(arguments)
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Command,
                prog="sfumato",
                description=_ABOUT,
                args=arguments,
                default=default,
                config=_CONFIG,
            )
    except SystemExit as end:
        if end.code in (None, 0):
            raise
        where = " ".join(["sfumato", *(word for word in arguments[:1] if word in _NAMES), "--help"])
        told = _mistyped(arguments) or in_one_line(said.getvalue())
        print(f"sfumato: {told} (see `{where}`)", file=sys.stderr)
        sys.exit(2)


def _as_called_today(word: str) -> str:
    """A flag by the name that it has now: `--grey` is `--gray`, `--physical` `--physical-batch-size`."""
    flag, equals, value = word.partition("=")
    for new, old in OLD_NAMES.items():
        for start in ("--", "--no-"):
            if flag == start + old:
                return start + new.replace("_", "-") + equals + value
    return word


def _from_file(arguments: list[str]) -> Any:
    """What `sfumato train --config FILE` begins with, before its flags. Raises ArgumentError."""
    words = [part for word in arguments for part in word.split("=", 1)]
    if arguments[:1] != ["train"] or "--config" not in words or words[-1] == "--config":
        return tyro.MISSING_NONPROP
    asked = asked_in(Path(words[words.index("--config") + 1]))
    return Train(asked.data, asked.privacy, asked.method, asked.run, asked.units)


def _mistyped(arguments: list[str]) -> str | None:
    """The command that there is none of, or the first option that the command does not have, with
    what is most like it; else None.
    """
    if arguments and not arguments[0].startswith("-") and arguments[0] not in _NAMES:
        return no_command(arguments[0], _NAMES)
    own = _options(tuple(word for word in arguments[:2] if word in (*OF_DATA, *_NAMES)))
    given = [word.split("=")[0] for word in arguments if word.startswith("--")]
    wrong = next((word for word in given if own and word.replace("_", "-") not in own), None)
    if wrong is None:
        return None
    near = difflib.get_close_matches(wrong, sorted(own), n=1)
    return f"there is no option {wrong}" + (f"; did you mean {near[0]}?" if near else "")


def _options(command: tuple[str, ...]) -> set[str]:
    """The options of a command, from its help; none for something that is no command."""
    if not command:
        return set()
    shown = io.StringIO()
    with (
        contextlib.redirect_stdout(shown),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        tyro.cli(Command, prog="sfumato", args=[*command, "--help"], config=_CONFIG)
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown.getvalue()))
