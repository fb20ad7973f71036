"""Sfumato as a user runs it, in this process, and what a refusal must look like."""

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfumato.cli import main

CLASSES = ("blue sky", "été d'Ångström", "赤 <b>")
PER_CLASS = {"train": 8, "test": 4}
N = len(CLASSES) * PER_CLASS["train"]
FILES = {
    "config.json",
    "plan.json",
    "ledger.jsonl",
    "metrics.jsonl",
    "model.safetensors",
    "model.json",
    "evaluation.json",
    "result.json",
    "report.html",
    "model_card.md",
}
NETWORK = ("--method", "dp-sgd", "--model", "cnn")
FULL_BATCH = (*NETWORK, "--steps", "4", "--batch", str(N), "--log", "quiet")
"""With q = 1 the accounting is exact and quick."""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def sfumato(*arguments: object) -> Outcome:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(each) for each in arguments])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def succeeds(*arguments: object) -> str:
    outcome = sfumato(*arguments)
    assert outcome.code == 0, outcome.err
    return outcome.out


@contextmanager
def ctrl_c_after(step: int) -> Iterator[None]:
    """Whoever trains meanwhile presses Ctrl-C when `step` steps are done and, if it was due, their
    checkpoint is written."""
    from sfumato.runs.recorder import Recorder

    after_step = Recorder.after_step

    def press_ctrl_c(self: Recorder, done: int, state: Any) -> None:
        after_step(self, done, state)
        if done == step:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recorder, "after_step", press_ctrl_c)
        yield


def tree(root: Path) -> dict[str, bytes | None]:
    """Everything below a directory, hidden files too."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def refused(root: Path, *arguments: object, says: tuple[str, ...]) -> str:
    """Exit code 2, one line on stderr with all of `says`, nothing on stdout, and not a byte below
    `root` changed."""
    before = tree(root)
    outcome = sfumato(*arguments)
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.count("\n") == 1 and outcome.err.startswith("sfumato: "), outcome.err
    for words in says:
        assert words in outcome.err, f"{words!r} is not in {outcome.err!r}"
    assert tree(root) == before
    return outcome.err


def write_images(folder: Path, count: int, shade: int, size: tuple[int, int] = (8, 8)) -> None:
    """`count` noisy images around one shade of each channel."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = np.random.default_rng(shade)
    for k in range(count):
        pixels = np.clip(stream.normal((shade, 128, 255 - shade), 30, (*size, 3)), 0, 255).astype(
            np.uint8
        )
        Image.fromarray(pixels).save(folder / f"{k}.png")


def write_dataset(root: Path, classes: tuple[str, ...] = CLASSES) -> Path:
    """train/ and test/ with a folder per class."""
    for number, name in enumerate(classes):
        for split, count in PER_CLASS.items():
            write_images(root / split / name, count, 20 + 100 * number)
    return root


def train_arguments(data: object, out: Path, *more: object) -> tuple[object, ...]:
    return ("train", "--data", data, *FULL_BATCH, "--out", out, *more)
