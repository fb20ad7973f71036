"""A procedure run inside a run directory: checkpoints, curve, replay guard, progress. The same lines
for `sfumato train` and for `sf.run`."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sfumato.core.devices import here
from sfumato.core.errors import RunError
from sfumato.core.keys import SecretKey
from sfumato.noise import Mechanism
from sfumato.privacy.ledger import Head, Ledger
from sfumato.runs.directory import RunDirectory
from sfumato.runs.progress import EpsilonMeter, Progress
from sfumato.runs.together import JointGuard
from sfumato.train import checkpoint
from sfumato.train.loop import Procedure, Remembering, State, run
from sfumato.train.saver import Saver

CURVE_POINTS = 10
"""How often the learning curve looks at what is held out during a run."""


@dataclass(frozen=True)
class Recording:
    """measured: a state -> more fields for a point of the curve. learns_from: the first step that
    changes them. per_step: examples expected in a step, for the rate on the screen. checkpoint_seconds: of
    `Saver`."""

    measured: Callable[[State], dict[str, Any]]
    learns_from: int = 0
    per_step: float = 0.0
    checkpoint_seconds: float | None = None


def carry_out(
    directory: RunDirectory,
    procedure: Procedure,
    ledger: Ledger,
    key: SecretKey,
    recording: Recording,
    progress: Progress,
    noise: Callable[[Mechanism], Mechanism],
) -> State:
    """The last state of the procedure, from the last checkpoint on."""
    if isinstance(procedure, Remembering):
        procedure.remember(directory.work / "sizes.json")
    recorder = Recorder(directory, procedure, ledger, recording, progress)
    state, first = recorder.restore()
    progress.begin(procedure.name, procedure.steps, "steps", done=first)
    with recorder.saver:
        return run(
            procedure,
            ledger,
            key,
            state=state,
            first=first,
            replay_guard=JointGuard(directory.work / "sums.jsonl"),
            after_step=recorder.after_step if here().first else lambda done, state: None,
            noise=noise,
        )


class Recorder:
    """What is written down after each step: checkpoints now and then, the learning curve, progress."""

    def __init__(
        self,
        directory: RunDirectory,
        procedure: Procedure,
        ledger: Ledger,
        recording: Recording,
        progress: Progress,
    ):
        self._directory, self._procedure, self._ledger = directory, procedure, ledger
        self._recording, self._progress = recording, progress
        steps, first = procedure.steps, recording.learns_from
        self._meter = EpsilonMeter(
            [procedure.event(step) for step in range(steps)], ledger.delta, ledger.relation
        )
        self._curve = {
            first + max(1, round((steps - first) * k / CURVE_POINTS))
            for k in range(1, CURVE_POINTS + 1)
        }
        self.saver = Saver(directory.checkpoint, recording.checkpoint_seconds)
        self._began = time.monotonic()
        self._first = 0

    def restore(self) -> tuple[State | None, int]:
        """State and number of steps of the last checkpoint; (None, 0) without one."""
        found = checkpoint.load(self._directory.checkpoint, self._procedure.start())
        if found is None:
            self._drop_metrics_after(0)
            return None, 0
        state, facts = found
        if not {"step", "seconds", "ledger_lines", "ledger_hash"} <= facts.keys():
            raise RunError(
                f"{self._directory.checkpoint}: the checkpoint is damaged; delete it to repeat this run's steps"
            )
        if not self._ledger.reaches(Head(facts["ledger_lines"], facts["ledger_hash"])):
            raise RunError(
                f"{self._ledger.path}: shorter than when the checkpoint was taken, so it would under-count; "
                "restore the ledger or start a new run"
            )
        self._first = facts["step"]
        self._began -= facts["seconds"]
        self._drop_metrics_after(self._first)
        return state, self._first

    def _drop_metrics_after(self, step: int) -> None:
        if here().first:
            self._directory.drop_metrics_after(step)

    def after_step(self, done: int, state: State) -> None:
        steps = self._procedure.steps
        epsilon = self._meter.after(done)
        now = time.monotonic()
        if done in self._curve:
            metric = {"step": done, "seconds": now - self._began, "epsilon": epsilon}
            self._directory.append_metric(metric | self._recording.measured(state))
        if done == steps or self.saver.due:
            head = self._ledger.head
            facts = {
                "step": done,
                "seconds": now - self._began,
                "ledger_lines": head.lines,
                "ledger_hash": head.hash,
            }
            self.saver.save(state, facts)
        images = int((done - self._first) * self._recording.per_step)
        self._progress.advance(done, images=images, epsilon=epsilon)
