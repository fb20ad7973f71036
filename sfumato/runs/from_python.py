"""`sf.run`: a method of the user's own, in memory or in a run directory.

What `sfumato train` does for the methods of the command line, this does for any procedure: the
ledger, the key, checkpoints, the replay guard, the curve, the report. The directory holds no code:
whoever goes on brings the same method, which is compared with what the directory says of it.
"""

import math
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import PyTree

from sfumato.core import files, generators, plugins, typed_json
from sfumato.core.checks import choice, positive
from sfumato.core.errors import ArgumentError, DataError, RunError
from sfumato.core.files import write_atomic
from sfumato.core.keys import SecretKey
from sfumato.noise import NOISES, Mechanism
from sfumato.plan.method_plan import MethodPlan
from sfumato.privacy.guarantee import Guarantee
from sfumato.privacy.ledger import Ledger
from sfumato.privacy.not_private import file_name
from sfumato.runs import tracking
from sfumato.runs.classifier import MODEL
from sfumato.runs.directory import RunDirectory
from sfumato.runs.progress import make_progress
from sfumato.runs.recorder import Recording, carry_out
from sfumato.runs.session import (
    Examples,
    beginning,
    end,
    refuse_changed,
    refuse_elsewhere,
    resources,
    resumable,
    write_result,
)
from sfumato.train import checkpoint, loop
from sfumato.train.described import description, examples_of, fingerprint_of, guarantee_of, released
from sfumato.train.loop import Procedure, State
from sfumato.train.replay_guard import ReplayGuard

Evaluate = Callable[[PyTree], float | Mapping[str, float]]
"""What is published -> an accuracy, or numbers by name. Exact, of data that no guarantee covers."""
STATE = "state.safetensors"


@dataclass(frozen=True)
class Options:
    """How a run in a directory is run; none of this but noise and insecure_seed changes its result.

    guarantee: for a method that was not calibrated. evaluate: told what would be published at ten
    points of the run; its numbers stand in metrics.jsonl and in the report. log: "bar", "json" or
    "quiet". log_to: "tensorboard", "mlflow" or "wandb", which is told what the run publishes.
    checkpoint_seconds: between two checkpoints; None: so that they take 2 % of the time. noise: what
    keeps the method's promise, a
    name of `NOISES` or package.module:Class; None: the method's own mechanism.
    insecure_seed: fixes noise and sampling too, for tests; it voids the guarantee.
    """

    guarantee: Guarantee | None = None
    evaluate: Evaluate | None = None
    log: str = "bar"
    log_to: str | None = None
    checkpoint_seconds: float | None = None
    noise: str | None = None
    insecure_seed: int | None = None

    def __post_init__(self) -> None:
        choice("log", self.log, ("bar", "json", "quiet"))
        if self.evaluate is not None and not callable(self.evaluate):
            raise ArgumentError(
                "evaluate", type(self.evaluate).__name__, "give a function of the parameters"
            )
        tracking.check(self.log_to)
        plugins.allow(self.noise)
        if self.noise is not None:
            _ = NOISES[self.noise]
        if self.checkpoint_seconds is not None:
            positive("checkpoint_seconds", self.checkpoint_seconds)


@overload
def run(
    method: Procedure,
    *,
    out: Path | str,
    guarantee: Guarantee | None = None,
    evaluate: Evaluate | None = None,
    log: str = "bar",
    log_to: str | None = None,
    checkpoint_seconds: float | None = None,
    noise: str | None = None,
    insecure_seed: int | None = None,
) -> State: ...
@overload
def run(
    method: Procedure,
    ledger: Ledger,
    key: SecretKey,
    *,
    state: State | None = None,
    first: int = 0,
    replay_guard: ReplayGuard | None = None,
    after_step: Callable[[int, State], None] = ...,
    noise: Callable[[Mechanism], Mechanism] = ...,
) -> State: ...
def run(
    method: Procedure,
    ledger: Ledger | None = None,
    key: SecretKey | None = None,
    *,
    out: Path | str | None = None,
    **options: Any,
) -> State:
    """Run a method to its end and return its last state.

    With `out`, a directory that is made: ledger, key, checkpoints, replay guard and progress are
    seen to, and at its end lie there the published parameters (model.safetensors), the whole last
    state (state.safetensors), report.html and model_card.md. The same line again goes on where the
    run was stopped, to the same bits, whatever stopped it; once it is complete, it returns the same
    state and spends nothing. options: those of `Options`.

    Going on is refused with another method, data or promise. Compared are the class and name of the
    method, n, steps, the shapes of its state, the guarantee, what it says of itself (of `DPSGD`:
    the programs of loss and optimizer, with the numbers written in them; sampler, noise, clipping,
    shapes of examples) and, under the run's secret key, the private examples. It cannot see the
    numbers in arrays that a loss closes over, or those that the parameters begin with; the examples
    only until the run is complete, as the key is destroyed then; and of a class of one's own only
    what that tells (`train/described.py`). A repeated release that differs is refused all the same.

    Without `out`, with a ledger and a key: the loop itself; options: those of `train.loop.run`.

    Raises ArgumentError, BudgetError (nothing is released then), RunError, LedgerError.
    """
    if out is not None and (ledger is not None or key is not None):
        raise ArgumentError(
            "out",
            str(out),
            "a run directory has a ledger and key of its own; give it, or those two",
        )
    if out is not None:
        return _run_in(Path(out), method, Options(**options))
    if ledger is None or key is None:
        raise ArgumentError("out", None, "name a directory for the run, or give a ledger and a key")
    return loop.run(method, ledger, key, **options)


def _run_in(path: Path, method: Procedure, options: Options) -> State:
    if not isinstance(method, Procedure):
        raise ArgumentError(
            "method",
            type(method).__name__,
            "give a procedure, such as sf.DPSGD(...) (docs/extend.md)",
        )
    guarantee = guarantee_of(method, options.guarantee)
    if not path.exists():
        _refuse_unready(method, guarantee)
    asked = _asked(method, guarantee, options)
    if not path.exists():
        seed = options.insecure_seed
        key = SecretKey.from_entropy() if seed is None else SecretKey.from_insecure_seed(seed)
        plan = MethodPlan.of(
            path.absolute().name, method, guarantee, asked["noise"], seed is not None
        )
        began = beginning(_examples(method, key))
        RunDirectory.create(path, key, asked, plan.to_json(), began)
    directory = RunDirectory.open(path)
    refuse_changed(directory)
    _refuse_another(directory, asked)
    if not directory.complete:
        # The ledger is the lock: from here on this process alone works on the run.
        with resumable(path), Ledger.open(path) as ledger:
            if not directory.complete:  # else another ended it just before
                _continue(directory, method, ledger, options)
    end(directory)
    return checkpoint.decode(directory.file(STATE), method.start())


def _continue(directory: RunDirectory, method: Procedure, ledger: Ledger, options: Options) -> None:
    files.remove_leftovers(directory.path)
    key = SecretKey.load(directory.key_file)
    same = "private examples (data[indices] must give the same whenever it is asked)"
    refuse_elsewhere(directory, _examples(method, key), same)
    began = time.monotonic()

    def measured(state: State) -> dict[str, Any]:
        return _measured(options.evaluate, released(method, state))

    sampler = getattr(method, "sampler", None)
    per_step = float(examples_of(method) if sampler is None else sampler.expected_batch_size)
    recording = Recording(measured, 0, per_step, options.checkpoint_seconds)
    with (
        closing(make_progress(options.log)) as progress,
        tracking.followed(directory, options.log_to, key.fingerprint, progress) as directory,
    ):
        keeping = NOISES[files.read_json(directory.file("config.json"))["noise"]].keeping
        state = carry_out(directory, method, ledger, key, recording, progress, keeping)
        trained = time.monotonic()
        plan = files.read_json(directory.file("plan.json"))
        model = file_name(MODEL, plan)
        write_atomic(directory.file(model), checkpoint.encode(released(method, state)))
        write_atomic(directory.file(STATE), checkpoint.encode(state))
        told = measured(state)
        seconds = {"training": trained - began, "total": time.monotonic() - began}
        write_result(directory, ledger, resources(seconds) | told)


def _examples(method: Procedure, key: SecretKey) -> Examples:
    stamp: Any = getattr(method, "stamp", None)
    return Examples(
        lambda: fingerprint_of(method, key.mac),
        None if stamp is None else stamp(key.mac),
        getattr(method, "decoder", None),
    )


def _measured(evaluate: Evaluate | None, model: PyTree) -> dict[str, Any]:
    """For metrics.jsonl and result.json; a single number is the accuracy."""
    if evaluate is None:
        return {}
    found = evaluate(model)
    named = found if isinstance(found, Mapping) else {"accuracy": found}
    for name, value in named.items():
        if not _is_number(value):
            raise ArgumentError(
                "evaluate",
                f"{name} {value}",
                "let it return a finite number, or a dict of such; the same line of sf.run then goes on",
            )
    return {"measured": {str(name): float(value) for name, value in named.items()}}


def _is_number(value: Any) -> bool:
    try:
        return np.ndim(value) == 0 and not isinstance(value, str) and math.isfinite(float(value))
    except (TypeError, ValueError, OverflowError):
        return False


def _asked(method: Procedure, guarantee: Guarantee, options: Options) -> dict[str, Any]:
    """config.json: all that must be the same when the run goes on."""
    asked: dict[str, Any] = typed_json.plain(
        {
            "procedure": description(method),
            "epsilon": guarantee.epsilon,
            "delta": guarantee.delta,
            "relation": guarantee.relation,
            "unit_name": guarantee.unit,
            "noise": options.noise or NOISES.name_of(method.mechanism(0).drawn_as),
            "noise_rng": generators.DEFAULT,
            "insecure_seed": options.insecure_seed,
        }
    )
    return asked


def _refuse_unready(method: Procedure, guarantee: Guarantee) -> None:
    """Before the method is described, which traces its loss: a rehearsal names what is wrong with that.
    Raises ArgumentError, DataError, BudgetError."""
    examples_of(method)
    _refuse_unaffordable(method, guarantee)
    _refuse_spoiled(method)
    loop.rehearse(method)


def _refuse_unaffordable(method: Procedure, guarantee: Guarantee) -> None:
    """Raises BudgetError before a directory is made."""
    about = (guarantee.delta, guarantee.epsilon, guarantee.relation)
    with Ledger.temporary(*about) as ledger:
        ledger.authorize(loop.tally(method))


def _refuse_spoiled(method: Procedure) -> None:
    """Warns of examples that count as nothing. Raises DataError where most do."""
    spoiled: Any = getattr(method, "spoiled", None)
    if spoiled is not None and (found := spoiled()):
        if found.most:
            raise DataError(f"{method.name}: {found}; {found.way_out}")
        warnings.warn(found.warning, stacklevel=4)


def _refuse_another(directory: RunDirectory, asked: dict[str, Any]) -> None:
    """Raises RunError unless the directory was begun with this method and promise."""
    stated = files.read_json(directory.file("config.json"))
    before, now = (dict(typed_json.entries(each)) for each in (stated, asked))
    for name in [*before, *now]:
        if before.get(name) != now.get(name):
            raise RunError(
                f"{directory.path}: it was begun with {name.removeprefix('procedure.')}={before.get(name)!r}, this is "
                f"{now.get(name)!r}; give the same method, or another out="
            )


def refuse_another_procedure(directory: RunDirectory, method: Procedure) -> None:
    """As `run` does where it goes on, but for the promise. Raises RunError."""
    asked = files.read_json(directory.file("config.json"))
    _refuse_another(directory, asked | {"procedure": typed_json.plain(description(method))})
