"""`sfumato evaluate`: a finished model on the held-out images of its own data set, or on other
labeled images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sfumato import data
from sfumato.core import typed_json
from sfumato.core.checks import MAX_PIXELS, whole
from sfumato.core.errors import ArgumentError, DataError, few
from sfumato.core.tasks import SINGLE
from sfumato.data.findings import as_asked
from sfumato.data.source import Source
from sfumato.data.unreadable import names_to_skip
from sfumato.plan.config import ColumnsConfig, read_config
from sfumato.report import finding_measures, measures, write_report
from sfumato.report.facts import Evaluation
from sfumato.report.intervals import Score
from sfumato.report.verdict import problems_of
from sfumato.runs import held_out, subgroups, temperature
from sfumato.runs import training as runs
from sfumato.runs.asked import EvaluateConfig
from sfumato.runs.classifier import Classifier
from sfumato.runs.directory import RunDirectory
from sfumato.train.evaluation import answers
from sfumato.train.metrics import measure
from sfumato.train.metrics import subgroups as told_apart

UNCOVERED = (
    "two numbers computed from these images exactly, which no epsilon covers: do not pass it on if they "
    "need protection"
)


def evaluate(config: EvaluateConfig) -> None:
    """On the run's own data set the result also replaces the one in the run directory and its
    report. Other images need nothing but the released model, model.json and model.safetensors.
    """
    if config.max_pixels is not None:
        whole("max_pixels", config.max_pixels)
    if config.group_table is not None and config.group is None:
        raise ArgumentError(
            "group_table", str(config.group_table), "give --group too, the name of a column in it"
        )
    directory = None if _is_other(config) else RunDirectory.open(config.run)
    if directory is not None:
        _check_own(config.columns)
        own = read_config(directory.file("config.json")).data
        config = replace(config, columns=replace(config.columns, path=own.path))
    if directory is not None and config.calibrate and config.columns.split != "validation":
        raise ArgumentError(
            "calibrate",
            True,
            "test images would then flatter the model; give --split validation (of a run with --validation), or "
            "--data",
        )
    classifier = Classifier.load(config.run)
    for name in ("positive", "group", "calibrate"):
        if asked := getattr(config, name):
            classifier.spec.task.need_classes(name, asked)
    positive = _positive(config, classifier)
    source, which, place = (
        _others(classifier, config) if directory is None else _own(directory, config)
    )
    found = (
        _examined(classifier, source, which, place, positive, config)
        if classifier.spec.task.exclusive
        else held_out.of_findings(answers(classifier.probabilities, source), source.labels)
    )
    classes = classifier.spec.classes
    stated = {"split": source.split, "n": len(source), "source": which, **found}
    evaluation = typed_json.convert(Evaluation, stated)
    if directory is not None:
        held_out.write_evaluation(directory, source, found)
        write_report(config.run)
    _print(evaluation, classes, which)
    if config.calibrate:
        kept = config.run / temperature.FILE
        print(f"kept      {kept}: {UNCOVERED}")


def _examined(
    classifier: Classifier,
    source: Source,
    which: str,
    place: Path,
    positive: int,
    config: EvaluateConfig,
) -> dict[str, Any]:
    """For evaluation.json, after the calibration that was asked for. place: of the images."""
    groups = (
        None
        if config.group is None
        else subgroups.values(source, place, config.group, config.group_table, config.columns.path)
    )
    if config.calibrate:
        classifier.calibration = None
    found, classes = answers(classifier.probabilities, source), classifier.spec.classes
    if config.calibrate:
        fitted = temperature.fit(found, source.labels, classes, positive, which)
        fitted.save(config.run)
        classifier.calibration, found = fitted, fitted.applied(found)
    called, own = classifier.decide(found), classifier.calibration
    threshold = 0.5 if own is None or own.threshold is None else own.threshold
    if own is not None and own.positive is not None and classes[positive] != own.positive:
        threshold = round(1 - threshold, 9)
    metrics = measure(found, source.labels, called, positive, threshold)
    if groups is not None:
        parts = {
            str(name): SINGLE.count(
                source.labels[groups == name], called[groups == name], len(classes)
            )
            for name in np.unique(groups)
        }
        metrics = replace(metrics, group_by=config.group, groups=told_apart(parts))
    if own is not None:
        metrics = replace(metrics, temperature=own.temperature)
    return held_out.of_classes(SINGLE.count(source.labels, called, len(classes)), metrics)


def _positive(config: EvaluateConfig, classifier: Classifier) -> int:
    """The number of the class that is looked for: as asked, as the model was calibrated for, or the
    second one."""
    classes = classifier.spec.classes
    if config.positive is None:
        own = classifier.calibration
        return 1 if own is None or own.positive is None else classes.index(own.positive)
    if len(classes) != 2 or config.positive not in classes:
        told = (
            f"choose one of {', '.join(classes)}"
            if len(classes) == 2
            else f"is for two classes; this model has {len(classes)}"
        )
        raise ArgumentError("positive", config.positive, told)
    return classes.index(config.positive)


def _is_other(config: EvaluateConfig) -> bool:
    """Are these images other than what the run was trained on? Of its own only what was held out may
    be counted."""
    is_run = (config.run / "plan.json").is_file()
    if config.data is None:
        if not is_run and (config.run / "model.json").exists():
            raise ArgumentError(
                "data",
                None,
                f"{config.run} holds a released model without its run; pass labeled images with --data",
            )
        return False
    if not is_run:
        return True
    own = read_config(config.run / "config.json").data.data
    same = config.data not in data.names() and str(Path(config.data).expanduser().resolve()) == own
    return config.data != own and not same


def _check_own(columns: ColumnsConfig) -> None:
    """Raises ArgumentError for what has no meaning for the run's own images."""
    if columns.split not in (None, "test", "validation"):
        raise ArgumentError(
            "split", columns.split, "of the run's own images choose one of test, validation"
        )
    for name in ("label", "path"):
        if (value := getattr(columns, name)) is not None:
            raise ArgumentError(
                name,
                value,
                "is for other images, given by --data; leave it out, as the run knows its own",
            )


def _own(directory: RunDirectory, asked: EvaluateConfig) -> tuple[Source, str, Path]:
    """(images, what they are, where they come from)."""
    config = read_config(directory.file("config.json"))
    config = replace(
        config,
        data=replace(
            config.data,
            data_dir=asked.data_dir or config.data.data_dir,
            max_pixels=asked.max_pixels or config.data.max_pixels,
        ),
    )
    splits, split = runs.open_splits(config), asked.columns.split or "test"
    source = splits.test if split == "test" else splits.validation
    if source is None:
        raise DataError(
            f"split={split!r}: {config.data.data} has no {split} images; give another --split or --data"
        )
    source = _without(source, asked.skip_unreadable)
    return source, f"{split} images of {source.name}", Path(config.data.data)


def _others(classifier: Classifier, asked: EvaluateConfig) -> tuple[Source, str, Path]:
    """As `_own`. Nothing is held out: all of them are used, or the test part of a set that has one."""
    name, most = str(asked.data), asked.max_pixels or MAX_PIXELS
    options = replace(
        classifier.reading,
        test_fraction=0.0,
        max_pixels=most,
        skip_unreadable=asked.skip_unreadable,
        **vars(asked.columns),
    )
    if not classifier.spec.task.exclusive:
        options = replace(options, findings=as_asked(classifier.spec.classes))
    splits = (
        data.open_rows(Path(name), 0.0, replace(options, resize=None, gray=False))
        if classifier.on_rows
        else data.open(name, data_dir=asked.data_dir, options=options)
    )
    shown, place = "rows" if classifier.on_rows else "images", Path(name).expanduser()
    if splits.test is not None:
        which = f"{shown} of {splits.test.name}: its test part, not its training part"
        return _relabeled(splits.test, classifier), which, place
    which = f"{shown} of {splits.train.name}: all that are labeled"
    return _relabeled(splits.train, classifier), which, place


def _without(source: Source, listed: Path | None) -> Source:
    """Without the images of the list, which may name those of other splits, too."""
    gone = set(names_to_skip(listed))
    if not gone or source.names is None:
        return source
    kept = [k for k, name in enumerate(source.names) if name not in gone]
    if not kept:
        raise DataError(f"{listed}: names all {len(source)} images, so none are left to evaluate")
    return source.subset(kept, source.split)


def _relabeled(source: Source, classifier: Classifier) -> Source:
    """With the model's numbers for its classes, of which some may be absent. Raises DataError."""
    classes, named = classifier.spec.classes, source.class_names
    unknown = [each for each in named if each not in classes]
    if unknown:
        raise DataError(
            f"data={source.name!r}: its classes ({few(named)}) are not the model's ({few(classes)}): {unknown[0]!r} is unknown;"
            " give images with these class names"
        )
    if source.shape != classifier.spec.shape:
        raise DataError(
            f"data={source.name!r}: images of shape {source.shape}; the model needs {classifier.spec.shape}; "
            "resize them"
        )
    if source.task is not classifier.spec.task:
        raise DataError(
            f"data={source.name!r}: its labels are {source.task.many}, the model's {classifier.spec.task.many}"
        )
    if not source.task.exclusive:
        if named != classes:
            raise DataError(f"data={source.name!r}: its findings are others than the model's")
        return source
    numbers = np.array([classes.index(each) for each in named], np.int32)
    return replace(source, labels=numbers[source.labels], class_names=classes)


def _print(evaluation: Evaluation, classes: tuple[str, ...], which: str) -> None:
    if evaluation.findings:
        print(f"{finding_measures.mean_words(evaluation)}   ({evaluation.n} {which})")
    else:
        right, n = round(evaluation.accuracy * evaluation.n), evaluation.n
        low, high = Score(right, n).interval
        print(
            f"accuracy {100 * right / n:.2f} %   (95 % interval {100 * low:.2f} to {100 * high:.2f}; {n} {which})"
        )
    for line in measures.lines(evaluation, classes):
        print(line)
    for problem in problems_of(evaluation, classes):
        print(f"warning  {problem}")
