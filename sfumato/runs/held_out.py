"""What is measured on held-out images, on the way and at the end of a run: what evaluation.json holds."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sfumato.core import typed_json
from sfumato.core.errors import DataError
from sfumato.core.tasks import MULTI, task_of
from sfumato.data.source import Source
from sfumato.runs import misclassified
from sfumato.runs.directory import RunDirectory
from sfumato.runs.jobs import Job
from sfumato.runs.progress import Progress
from sfumato.train.evaluation import accuracy, count
from sfumato.train.finding_metrics import measure_findings
from sfumato.train.loop import State
from sfumato.train.metrics import Metrics, of_scores


def tell(problems: Iterable[str], progress: Progress) -> None:
    """To the owner of the data, before anything is paid for; no file has it."""
    for problem in problems:
        if problem:
            progress.say(f"warning   {problem}", warning=problem)


@dataclass
class Measuring:
    """What is measured on held-out images while a run has begun to pay. It learns nothing from them, so
    one that cannot be read ends nothing: a point of the curve, or the evaluation, is missing, which is
    told once, and `sfumato evaluate` measures what it can later."""

    progress: Progress
    told: bool = False

    @contextmanager
    def if_readable(self) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            if not self.told:
                told = f"{error}; it is held out, so the run goes on, and is measured later by `sfumato evaluate`"
                tell([told], self.progress)
            self.told = True


def evaluate(
    directory: RunDirectory, show_images: bool, job: Job, state: State, held_out: Source | None
) -> None:
    """Of the last state, into evaluation.json; show_images: and the mistakes, for the owner alone."""
    if job.scores is None or held_out is None:
        return
    write_evaluation(directory, held_out, examined(job.scores(state), held_out.labels))
    if show_images:
        shown = misclassified.misclassified(job.classifier(state), held_out)
        directory.write("images.json", shown, mode=0o600)


def examined(scores: Any, labels: Any) -> dict[str, Any]:
    """What evaluation.json says of scores."""
    task = task_of(labels)
    if task.exclusive:
        return of_classes(count(labels, scores), of_scores(scores, labels))
    return of_findings(task.probabilities(scores), labels)


def of_classes(counts: Any, metrics: Metrics) -> dict[str, Any]:
    """The same, of a confusion matrix and what was measured besides."""
    return {
        "confusion": counts.tolist(),
        "accuracy": accuracy(counts),
        "metrics": typed_json.plain(metrics),
    }


def of_findings(probabilities: Any, labels: Any) -> dict[str, Any]:
    """The same, of the probabilities of findings."""
    counts = MULTI.count(labels, MULTI.decided(probabilities), labels.shape[1])
    found = measure_findings(probabilities, labels)
    return {"confusion": [], "accuracy": accuracy(counts), "findings": typed_json.plain(found)}


def write_evaluation(
    directory: RunDirectory, source: Source, found: dict[str, Any]
) -> dict[str, Any]:
    """evaluation.json, and what is in it. found: by `examined`."""
    words = f"the {source.split} {'images' if source.rows is None else 'examples'} of {source.name}"
    evaluation = {"split": source.split, "n": len(source), "source": words, **found}
    directory.write("evaluation.json", evaluation)
    return evaluation
