"""`sfumato predict`: files, folders and tables -> a class and probabilities for each image or row."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core.checks import MAX_PIXELS, new_file, whole
from sfumato.core.errors import ArgumentError, DataError, SfumatoError, on_one_line
from sfumato.data.decode import SUFFIXES
from sfumato.data.workers import spread
from sfumato.runs.classifier import Classifier, Spec

TABLES = (".npy", ".npz")
MOST_BYTES = 1 << 28
"""Of decoded images that are held at once."""
MOST_IMAGES = 512
NAMED = 10
"""Files without an answer that are named at the end; the rest are counted."""


@dataclass(frozen=True)
class Answer:
    """row: in the table `file`; None for an image file. called: the number of its class, or 0 and 1 for
    its findings."""

    file: str
    row: int | None
    probabilities: np.ndarray
    called: Any


class Asked:
    """What a user names -> answers, in order. `failures`: what could not be read so far, and why."""

    def __init__(self, classifier: Classifier, given: Sequence[Path], max_pixels: int = MAX_PIXELS):
        self._classifier, self._given, self._max_pixels = classifier, given, max_pixels
        self.failures: list[tuple[str, str]] = []

    @property
    def tables(self) -> bool:
        """Do rows need numbers?"""
        return self._classifier.on_rows or any(_is_table(path) for path in self._given)

    def __iter__(self) -> Iterator[Answer]:
        """Memory is bounded: so many files are decoded, answered and forgotten. Files are read by
        all threads."""
        height, width, colors = self._classifier.spec.shape
        at_once = max(1, min(MOST_IMAGES, MOST_BYTES // (4 * height * width * colors)))
        waiting: list[Path] = []
        for path in self._files():
            if not self._classifier.on_rows and not _is_table(path):
                waiting.append(path)
                if len(waiting) < at_once:
                    continue
            yield from self._images(waiting)
            waiting = []
            if self._classifier.on_rows or _is_table(path):
                yield from self._table(path, at_once)
        yield from self._images(waiting)

    def _files(self) -> Iterator[Path]:
        """Folders become the images below them, in order of their names; for a model of rows they
        are feature stores."""
        for path in self._given:
            if self._classifier.on_rows or not path.is_dir():
                yield path
                continue
            found = list(images_below(path))
            if not found:
                self.failures.append(
                    (str(path), f"no images in this folder; they end in {', '.join(SUFFIXES)}")
                )
            yield from found

    def _images(self, paths: list[Path]) -> Iterator[Answer]:
        def read(path: Path) -> Any:
            try:
                return self._classifier.read(path, self._max_pixels)
            except SfumatoError as error:
                return error

        read_ones = list(spread(read, paths))
        good = [
            (path, pixels)
            for path, pixels in zip(paths, read_ones, strict=True)
            if isinstance(pixels, np.ndarray)
        ]
        self.failures += [
            (str(path), str(error))
            for path, error in zip(paths, read_ones, strict=True)
            if isinstance(error, SfumatoError)
        ]
        if good:
            found = self._classifier.predict_proba(np.concatenate([pixels for _, pixels in good]))
            called = self._classifier.decide(found).tolist()
            yield from (
                Answer(str(path), None, row, best)
                for (path, _), row, best in zip(good, found, called, strict=True)
            )

    def _table(self, path: Path, at_once: int) -> Iterator[Answer]:
        try:
            rows = self._classifier.table(path)
        except SfumatoError as error:
            self.failures.append((str(path), str(error)))
            return
        for start in range(0, len(rows), at_once):
            part = self._classifier.pixels(rows[start : start + at_once])
            found = self._classifier.predict_proba(part)
            called = self._classifier.decide(found).tolist()
            for k, (row, best) in enumerate(zip(found, called, strict=True), start=start):
                yield Answer(str(path), k, row, best)


def images_below(folder: Path) -> Iterator[Path]:
    """The image files in a folder and in those below it, in order of their names; what begins with
    a dot is left alone."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (
            Path(place, name)
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
        )


def _is_table(path: Path) -> bool:
    return path.suffix.lower() in TABLES


def predict(
    path: Path, given: Sequence[Path], as_json: bool, out: Path | None, max_pixels: int = MAX_PIXELS
) -> None:
    """Answers on standard output, or in a table. What has no answer is named at the end, on
    standard error, and the exit code is then 1; where nothing has one, DataError.
    """
    if not given:
        raise ArgumentError(
            "images", [], "give at least one image file, folder or table (.npz, .npy)"
        )
    if out is not None:
        _check(out, as_json)
    whole("max_pixels", max_pixels)
    classifier = Classifier.load(path)
    asked = Asked(classifier, given, max_pixels)
    answered = 0
    with _writer(out, as_json, classifier.spec, asked.tables) as write:
        for answer in asked:
            write(answer)
            answered += 1
        if not answered and asked.failures:
            raise DataError(
                asked.failures[0][1]
                + (
                    f"; nor can {len(asked.failures) - 1} more be read"
                    if len(asked.failures) > 1
                    else ""
                )
            )
    if out is not None:
        print(f"predicted {answered:,} {'rows' if asked.tables else 'images'}, in {out}")
    if asked.failures:
        for _, why in asked.failures[:NAMED]:
            print(f"sfumato: no answer: {why}", file=sys.stderr)
        hidden = len(asked.failures) - NAMED
        print(
            f"sfumato: {len(asked.failures)} of {answered + len(asked.failures)} have no answer"
            + (f", {hidden} of them not named above" if hidden > 0 else ""),
            file=sys.stderr,
        )
        sys.exit(1)


def _check(out: Path, as_json: bool) -> None:
    if out.suffix.lower() != ".csv":
        raise ArgumentError("out", str(out), "give a name that ends in .csv")
    if as_json:
        raise ArgumentError("json", as_json, "give either --json or --out, not both")
    new_file("out", out)


@contextmanager
def _writer(
    out: Path | None, as_json: bool, spec: Spec, tables: bool
) -> Iterator[Callable[[Answer], None]]:
    """What takes an answer. A table gets its name when it is whole; until then it is NAME.part."""
    if out is None:
        yield _print_json(spec) if as_json else _print_line(spec)
        return
    aside = out.with_name(f"{out.name}.part")
    try:
        with open(aside, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = csv.writer(file, lineterminator="\n")
            numbered = ("row",) if tables else ()
            rows.writerow(
                ["file", *numbered, "prediction", *(f"P({name})" for name in spec.classes)]
            )

            def write(answer: Answer) -> None:
                place = ["" if answer.row is None else answer.row] if tables else []
                rows.writerow(
                    [
                        answer.file,
                        *place,
                        spec.task.words(spec.classes, answer.called),
                        *(f"{p:.6f}" for p in answer.probabilities),
                    ]
                )

            yield write
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)


def _print_json(spec: Spec) -> Callable[[Answer], None]:
    def write(answer: Answer) -> None:
        place = (
            {"image": answer.file}
            if answer.row is None
            else {"rows": answer.file, "row": answer.row}
        )
        probabilities = {
            name: round(float(p), 6)
            for name, p in zip(spec.classes, answer.probabilities, strict=True)
        }
        called = spec.task.as_json(spec.classes, answer.called)
        print(json.dumps({**place, **called, "probabilities": probabilities}))

    return write


def _print_line(spec: Spec) -> Callable[[Answer], None]:
    def write(answer: Answer) -> None:
        called = spec.task.words(spec.classes, answer.called)
        place = [answer.file] if answer.row is None else [answer.file, answer.row]
        told = (*place, called, spec.task.sure(answer.probabilities, answer.called))
        print(*(on_one_line(str(each)) for each in told), sep="\t")

    return write
