"""Commands that only list or calculate start at once: what takes a second to import is not
imported."""

import subprocess
import sys

import pytest

PROGRAM = """
import io, sys
from contextlib import redirect_stdout
from sfumato.cli import main
for command in sys.argv[2:]:
    with redirect_stdout(io.StringIO()) as told:
        try:
            main(command.split())
        except SystemExit as stopped:
            assert not stopped.code, command
    heavy = set(sys.argv[1].split(",")) & set(sys.modules)
    assert told.getvalue() and not heavy, (command, heavy)
"""
NEVER = "jax,jaxlib,equinox,optax,matplotlib,sklearn,PIL"
WITHOUT_SCIPY = NEVER + ",scipy,dp_accounting"
COMMANDS = {
    WITHOUT_SCIPY: (
        "--help",
        "--version",
        "train --help",
        "data list",
        "models",
        "models list",
        "models vit-b16 --json",
        "recipes",
        "data info cifar10",
        "explain-epsilon 3 --delta 1e-5",
    ),
    NEVER: (
        "account --noise-multiplier 2 --n 100 --batch 100 --steps 3",
        "calibrate --epsilon 1 --n 100 --batch 100 --steps 3",
    ),
}


@pytest.mark.parametrize("heavy", COMMANDS)
def test_what_a_light_command_does_not_import(heavy: str) -> None:
    """One process for those of one kind, which looks after each: what one of them imported, it and
    all before it did not need."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, heavy, *COMMANDS[heavy]], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
