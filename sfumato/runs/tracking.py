"""`--log-to`: what a run publishes, told to a tracking tool while it works.

Nothing is tracked that does not also stand in a file of the run which others may read: a tracker is told
what `RunDirectory` writes, after the table of fields has let it pass (`privacy/fields.py`), and has no
other source. So no loss of a private image, no norm and no batch size can reach it. What is exact in those
files is exact there, too: accuracy on held-out images, and times.

Tools like to add what they find (user, host, command line, git, the code). They are told not to.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from sfumato.core import extras, typed_json
from sfumato.core.checks import choice
from sfumato.core.errors import said
from sfumato.core.files import read_json
from sfumato.runs.directory import RunDirectory
from sfumato.runs.progress import Progress

Numbers = Mapping[str, float]
PROJECT = "sfumato"


@dataclass(frozen=True)
class Tracked:
    """The run's directory; a name that nobody else has and that a resumed run keeps (the fingerprint of its
    key, as in the ledger); the plan in single facts; whether it goes on."""

    path: Path
    identity: str
    facts: Mapping[str, Any]
    resumed: bool


@runtime_checkable
class Tracker(Protocol):
    def numbers(self, found: Numbers, step: int) -> None:
        """What is known after so many steps."""

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `tensorboard/` beside the run's directory, by its name."""

    def __init__(self, run: Tracked):
        from tensorboardX import SummaryWriter

        folder = run.path.absolute().parent / "tensorboard" / run.path.absolute().name
        # An older run of this name, whose directory was removed, is forgotten.
        self._writer = SummaryWriter(str(folder), purge_step=None if run.resumed else 0)
        table = "".join(f"| {name} | {value} |\n" for name, value in run.facts.items())
        self._writer.add_text("plan", f"| setting | value |\n|---|---|\n{table}", 0)

    def numbers(self, found: Numbers, step: int) -> None:
        for name, value in found.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """A run of the experiment "sfumato", where MLFLOW_TRACKING_URI says. Its client adds no tags of its
    own (`mlflow.start_run` would: user, script, git)."""

    def __init__(self, run: Tracked):
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        known = self._client.get_experiment_by_name(PROJECT)
        own = known.experiment_id if known else self._client.create_experiment(PROJECT)
        tag = {f"{PROJECT}.run": run.identity}
        query = f"tags.`{PROJECT}.run` = '{run.identity}'"
        found = self._client.search_runs([own], query) if run.resumed else []
        made = found[0] if found else self._client.create_run(own, tags=tag, run_name=run.path.name)
        self._run = made.info.run_id
        for name, value in run.facts.items() if not found else ():
            self._client.log_param(self._run, name, value)

    def numbers(self, found: Numbers, step: int) -> None:
        for name, value in found.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class WeightsAndBiases:
    """A run of the project "sfumato"; WANDB_MODE=offline keeps it on this computer."""

    def __init__(self, run: Tracked):
        import wandb

        quiet = wandb.Settings(
            console="off",
            host="",
            silent=True,
            save_code=False,
            disable_git=True,
            disable_code=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            project=PROJECT,
            name=run.path.name,
            id=run.identity,
            resume="allow",
            dir=str(run.path.absolute().parent),
            config=dict(run.facts),
            settings=quiet,
        )

    def numbers(self, found: Numbers, step: int) -> None:
        self._run.log(dict(found), step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[Tracked], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
}
"""--log-to, which is also the name of the extra that installs it -> what is told."""


def check(name: str | None) -> None:
    """Raises ArgumentError for a name that there is none of, or whose packages are missing."""
    if name is not None:
        extras.need(choice("log_to", name, tuple(TRACKERS)), "log_to", name)


@contextmanager
def followed(
    directory: RunDirectory, name: str | None, identity: str, progress: Progress
) -> Iterator[RunDirectory]:
    """The directory, whose files are tracked as they are written. A tool that fails costs no run: it is
    left out from then on, with one line."""
    if name is None:
        yield directory
        return
    follower = _Follower(name, progress)
    resumed = directory.metrics.exists()
    facts = scalars(read_json(directory.file("plan.json")))
    follower.begin(Tracked(directory.path, identity, facts, resumed))
    try:
        yield replace(directory, written=follower.written)
    finally:
        follower.end()


class _Follower:
    def __init__(self, name: str, progress: Progress):
        self._name, self._progress, self._step = name, progress, 0
        self._tracker: Tracker | None = None

    def begin(self, run: Tracked) -> None:
        self._tracker = self._trying(lambda: TRACKERS[self._name](run))

    def written(self, file: str, value: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, or a whole file that others may read."""
        self._step = int(value.get("step", self._step))
        if file not in _PREFIX or self._tracker is None:
            return
        found = {
            _PREFIX[file] + name: float(each)
            for name, each in scalars(value).items()
            if isinstance(each, int | float) and not isinstance(each, bool) and name != "step"
        }
        tracker = self._tracker
        self._trying(lambda: tracker.numbers(found, self._step))

    def end(self) -> None:
        if self._tracker is not None:
            self._trying(self._tracker.close)

    def _trying(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # a server, its client: whatever they do, the run goes on
            self._tracker = None
            self._progress.say(
                f"warning   --log-to {self._name}: {said(error)}; the run goes on without it",
                warning=f"log_to={self._name}: {said(error)}",
            )
            return None


_PREFIX = {"metrics.jsonl": "", "evaluation.json": "evaluation.", "result.json": "result."}
"""Which files are tracked, and what their numbers are called by."""


def scalars(value: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and words of nested objects by dotted names; of a path its last part, as in the report. Lists
    are left out."""
    found: dict[str, Any] = {}
    for name, each in typed_json.entries(value):
        if isinstance(each, str):
            found[name] = Path(each).name if each.startswith(("/", "~")) else each
        elif isinstance(each, bool | int | float):
            found[name] = each
    return found
