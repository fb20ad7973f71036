"""Commands that only list or calculate start at once: what takes a second to import is not
imported."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
from sfumato.cli import main
try:
    main(sys.argv[2:])
except SystemExit as stopped:
    assert not stopped.code
heavy = set(sys.argv[1].split(",")) & set(sys.modules)
assert not heavy, heavy
"""
NEVER = "jax,jaxlib,equinox,optax,matplotlib,sklearn,PIL"
WITHOUT_SCIPY = NEVER + ",scipy,dp_accounting"
COMMANDS = {
    "--help": WITHOUT_SCIPY,
    "--version": WITHOUT_SCIPY,
    "train --help": WITHOUT_SCIPY,
    "data list": WITHOUT_SCIPY,
    "models": WITHOUT_SCIPY,
    "models list": WITHOUT_SCIPY,
    "models vit-b16 --json": WITHOUT_SCIPY,
    "recipes": WITHOUT_SCIPY,
    "data info cifar10": WITHOUT_SCIPY,
    "account --noise-multiplier 2 --n 100 --batch 100 --steps 3": NEVER,
    "explain-epsilon 3 --delta 1e-5": WITHOUT_SCIPY,
    "calibrate --epsilon 1 --n 100 --batch 100 --steps 3": NEVER,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_what_a_light_command_does_not_import(command: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, COMMANDS[command], *command.split()],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
