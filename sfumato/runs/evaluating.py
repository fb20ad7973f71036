"""`sfumato evaluate`: a finished model on the held-out images of its own data set, or on other
labeled images."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from sfumato import data
from sfumato.core.checks import MAX_PIXELS, whole
from sfumato.core.errors import ArgumentError, DataError
from sfumato.data.source import Source
from sfumato.plan.config import read_config
from sfumato.report import write_report
from sfumato.report.intervals import Score
from sfumato.report.verdict import verdicts
from sfumato.runs import training as runs
from sfumato.runs.classifier import Classifier
from sfumato.runs.directory import RunDirectory
from sfumato.train.evaluation import confusion


def evaluate(
    path: Path, name: str | None, data_dir: Path | None, split: str, max_pixels: int | None = None
) -> None:
    """On the run's own data set the result also replaces the one in the run directory and its
    report. Other images need nothing but the released model, model.json and model.safetensors.
    max_pixels: of an image file that is decoded, None for the run's own limit, of other images the
    customary one.
    """
    if max_pixels is not None:
        whole("max_pixels", max_pixels)
    if name is not None and not _is_own(path, name):
        classifier = Classifier.load(path)
        source, which = _others(classifier, name, data_dir, max_pixels or MAX_PIXELS)
        counts = confusion(classifier.probabilities, source)
    else:
        if name is None and not (path / "config.json").exists() and (path / "model.json").exists():
            raise ArgumentError(
                "data",
                None,
                f"{path} holds a released model without its run; pass labeled images with --data",
            )
        directory = RunDirectory.open(path)
        classifier = Classifier.load(path)
        source = _own(directory, data_dir, split, max_pixels)
        which = f"{split} images of {source.name}"
        counts = confusion(classifier.probabilities, source)
        runs.write_evaluation(directory, source, counts)
        write_report(path)
    _print(counts, classifier.spec.classes, which)


def _is_own(path: Path, name: str) -> bool:
    """Is it the data set that the run was trained on? Then only what was held out may be counted."""
    if not (path / "config.json").is_file():
        return False
    own = read_config(path / "config.json").data.data
    return name == own or (
        name not in data.names() and str(Path(name).expanduser().resolve()) == own
    )


def _own(
    directory: RunDirectory, data_dir: Path | None, split: str, max_pixels: int | None
) -> Source:
    config = read_config(directory.file("config.json"))
    config = replace(
        config,
        data=replace(
            config.data,
            data_dir=data_dir or config.data.data_dir,
            max_pixels=max_pixels or config.data.max_pixels,
        ),
    )
    splits = runs.open_splits(config)
    source = splits.test if split == "test" else splits.validation
    if source is None:
        raise DataError(
            f"split={split!r}: {config.data.data} has no {split} images; give another --split or --data"
        )
    return source


def _others(
    classifier: Classifier, name: str, data_dir: Path | None, max_pixels: int
) -> tuple[Source, str]:
    """(images, what they are). Nothing is held out: all of them are used, or the test part of a set
    that has one."""
    options = replace(classifier.reading, test_fraction=0.0, max_pixels=max_pixels)
    splits = (
        data.open_rows(Path(name), 0.0, replace(options, resize=None, gray=False))
        if classifier.on_rows
        else data.open(name, data_dir=data_dir, options=options)
    )
    shown = "rows" if classifier.on_rows else "images"
    if splits.test is not None:
        return _relabeled(
            splits.test, classifier
        ), f"{shown} of {splits.test.name}: its test part, not its training part"
    return _relabeled(
        splits.train, classifier
    ), f"{shown} of {splits.train.name}: all that are labeled"


def _relabeled(source: Source, classifier: Classifier) -> Source:
    """With the model's numbers for its classes, of which some may be absent. Raises DataError."""
    classes, named = classifier.spec.classes, source.class_names
    unknown = [each for each in named if each not in classes]
    if unknown:
        theirs, ours = (
            ", ".join(each[:5]) + (", ..." if len(each) > 5 else "") for each in (named, classes)
        )
        raise DataError(
            f"data={source.name!r}: its classes ({theirs}) are not the model's ({ours}): {unknown[0]!r} is unknown;"
            " give images with these class names"
        )
    if source.shape != classifier.spec.shape:
        raise DataError(
            f"data={source.name!r}: images of shape {source.shape}; the model needs {classifier.spec.shape}; "
            "resize them"
        )
    numbers = np.array([classes.index(each) for each in named], np.int32)
    return replace(source, labels=numbers[source.labels], class_names=classes)


def _print(counts: np.ndarray, classes: tuple[str, ...], which: str) -> None:
    right, n = int(np.trace(counts)), int(counts.sum())
    low, high = Score(right, n).interval
    print(
        f"accuracy {100 * right / n:.2f} %   (95 % interval {100 * low:.2f} to {100 * high:.2f}; {n} {which})"
    )
    for problem in verdicts(counts.tolist(), classes):
        print(f"warning  {problem}")
