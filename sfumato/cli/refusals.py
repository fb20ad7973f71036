"""What the parser says of wrong arguments, in a box over many lines -> one line that says the way
out."""

import difflib
import re
from collections.abc import Sequence

_KINDS = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path"}
_PARSED = re.compile(
    r"Error parsing (\S+): no type matching (\S+) could be instantiated from \[(.*?)\]"
)
_CHOICE = re.compile(r"invalid choice (.+?) for argument '(.+?)'\. Expected one of \((.*?)\)")
_NO_VALUE = re.compile(r"Missing value for argument '(.+?)'")
_MISSING = re.compile(r"Missing from sfumato ([ a-z]+?):")
_NAMED = re.compile(r"(--[a-z][a-z-]*|[A-Z_]{2,})( \S+)?")
"""A line of what is missing: an option with what it takes, or a place."""
_UNKNOWN = re.compile(r"Unrecognized options: (.+?)(?: Available subcommands: (.*))?$")
_COMMANDS = re.compile(r"Expected one of \{(.*?)\}")


def in_one_line(said: str) -> str:
    """said: as the parser prints it. Whatever is not known stays as it is, without the frame."""
    lines = [line.strip("│╭╮╰╯─ ") for line in said.splitlines()]
    text = " ".join(" ".join(line for line in lines if line.strip("-")).split())
    text = text.split("For full helptext")[0].split("Argument helptext")[0].strip()
    if found := _PARSED.search(text):
        return f"{found[1]} {_bare(found[3])}: give {_kinds(found[2])}"
    if found := _CHOICE.search(text):
        return f"{found[2]} {_bare(found[1])}: choose one of {_choices(found[3])}"
    if found := _NO_VALUE.search(text):
        return f"{found[1]}: give a value"
    if found := _MISSING.search(text):
        needed = [name[1] for line in lines if (name := _NAMED.fullmatch(line))]
        return f"{found[1]} needs {', '.join(needed)}" if needed else text
    if found := _UNKNOWN.search(text):
        return _unknown(found[1], found[2])
    if found := _COMMANDS.search(text):
        return f"name a command: {found[1]}"
    return text


def _unknown(given: str, commands: str | None) -> str:
    if commands is None:
        return f"{given}: belongs to no option; options begin with -- and a value follows its own"
    return no_command(given.split()[0].strip(","), commands.split(", "))


def no_command(given: str, commands: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, commands, n=1)
    meant = f"did you mean {near[0]}? There" if near else "there"
    return f"there is no command {given}; {meant} are {', '.join(commands)}"


def _kinds(types: str) -> str:
    """`{auto}|INT` -> a whole number or auto."""
    each = [kind.strip("{}").replace(",", ", ") for kind in types.split("|") if kind != "None"]
    return " or ".join(_KINDS.get(kind, kind) for kind in reversed(each))


def _bare(values: str) -> str:
    """'a', 'b' -> a, b."""
    return values.replace("'", "")


def _choices(values: str) -> str:
    """The parser lists those of an optional value as a set does, with None among them."""
    found = _bare(values).split(", ")
    return ", ".join(sorted(set(found) - {"None"}) if "None" in found else found)
