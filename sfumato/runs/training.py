"""`sfumato train` and `sfumato resume`: from a configuration to a finished run directory."""

import importlib.metadata
import platform
import resource
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato import data
from sfumato.core import files, typed_json
from sfumato.core.errors import DataError, RunError
from sfumato.core.keys import SecretKey
from sfumato.data import finite
from sfumato.data.copies import copies_in
from sfumato.data.listing import left_out_words
from sfumato.data.source import DataInfo, Source, Splits
from sfumato.features import by_name
from sfumato.noise import NOISES
from sfumato.plan import public_weights, unit_batches
from sfumato.plan.config import DataConfig, Log, PrivacyConfig, TrainConfig, read_config
from sfumato.plan.making import make_plan
from sfumato.plan.plan import Plan, read_plan
from sfumato.privacy.ledger import Head, Ledger
from sfumato.report import write_report
from sfumato.runs import misclassified
from sfumato.runs.classifier import Classifier
from sfumato.runs.directory import RunDirectory, refuse_existing
from sfumato.runs.environment import differences, environment
from sfumato.runs.jobs import Job, build
from sfumato.runs.progress import EpsilonMeter, Progress, make_progress
from sfumato.train import checkpoint
from sfumato.train.evaluation import accuracy
from sfumato.train.loop import State, run
from sfumato.train.replay_guard import ReplayGuard

CURVE_POINTS = 10
"""How often the learning curve looks at the evaluation images during a run."""


def describe(config: TrainConfig) -> DataInfo:
    """The public facts of the data a configuration names."""
    return unit_batches.named(_found(config), config.units)


def _found(config: TrainConfig) -> DataInfo:
    where = config.data
    if config.method.model == by_name.GIVEN:
        return data.describe_rows(Path(where.data), where.validation, read_options(config))
    try:
        return data.describe(
            where.data,
            data_dir=where.data_dir,
            validation=where.validation,
            options=read_options(config),
            download=not config.run.dry_run,
        )
    except DataError:
        if (
            not config.run.dry_run
            or where.data not in data.names()
            or config.units.unit is not None
        ):
            raise
        facts = data.published(
            where.data
        )  # not on this machine: what is published is enough for a plan
        held = round(where.validation * facts.counts["train"])
        used = round(where.share * (facts.counts["train"] - held))
        counts = {**facts.counts, "train": used} | ({"validation": held} if held else {})
        chosen = bool(held) or where.share < 1
        return DataInfo(
            where.data, facts.address, facts.classes, facts.shape, counts, by_position=chosen
        )


def plan_for(config: TrainConfig) -> Plan:
    """The plan, without decoding any image: what `--dry-run` shows."""
    config.check()
    return make_plan(config, describe(config))


def tell_left_out(left_out: dict[str, int], progress: Progress) -> None:
    """Files that are not read are not passed over without a word."""
    if left_out:
        progress.say(f"data      {left_out_words(left_out)}", left_out=left_out)


def tell(problems: Iterable[str], progress: Progress) -> None:
    """To the owner of the data, before anything is paid for; no file has it."""
    for problem in problems:
        if problem:
            progress.say(f"warning   {problem}", warning=problem)


def train(config: TrainConfig) -> RunDirectory:
    """Run from the beginning. Whatever is wrong with configuration or data is found before anything
    is written."""
    config.check()
    config = _with_absolute_paths(config)
    refuse_existing(config.out)
    info = describe(config)
    make_plan(config, info)  # refuse what cannot be planned before the images are read
    splits = open_splits(config)
    problems = finite.checked(splits, splits.evaluated(config.data.validation))
    plan = make_plan(config, counted(info, splits))
    key = secret_key(config.privacy)
    began = {"fingerprint": splits.train.fingerprint(key.mac), "environment": environment()}
    directory = RunDirectory.create(
        config.out, key, typed_json.plain(config), plan.to_json(), began
    )
    with (
        _resumable(directory.path),
        Ledger.open(directory.path) as ledger,
        closing(make_progress(config.run.log)) as progress,
    ):
        tell_left_out(plan.left_out, progress)
        copied = copies_in(splits.train, splits.evaluated(config.data.validation))
        tell((*plan.warnings(), *problems, *copied), progress)
        _fit(directory, config, plan, splits, key, ledger, progress)
    return _end(directory)


def secret_key(privacy: PrivacyConfig) -> SecretKey:
    """A new one, of the generator that was asked for."""
    seed = privacy.insecure_seed
    key = SecretKey.from_entropy() if seed is None else SecretKey.from_insecure_seed(seed)
    return key.using(privacy.noise_rng)


@contextmanager
def _resumable(path: Path) -> Iterator[None]:
    """Whoever presses Ctrl-C is told which run goes on from there: the interruption carries it to
    the command line."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        stopped.run = path  # type: ignore[attr-defined]
        raise


def resume(path: Path, log: Log | None = None) -> RunDirectory:
    """Continue a run that was stopped; a complete one only gets its report anew."""
    directory = RunDirectory.open(path)
    _refuse_changed(directory)
    if not directory.complete:
        # The ledger is the lock: from here on this process alone works on the run.
        with _resumable(directory.path), Ledger.open(directory.path) as ledger:
            if not directory.complete:  # else another ended it just before
                _continue(directory, log, ledger)
    return _end(directory)


def _continue(directory: RunDirectory, log: Log | None, ledger: Ledger) -> None:
    """Go on from the last checkpoint, if everything that the bits of a release depend on is as it
    was."""
    path = directory.path
    files.remove_leftovers(path)
    config = read_config(directory.file("config.json"))
    if log is not None:
        config = replace(config, run=replace(config.run, log=log))
    plan = read_plan(directory.file("plan.json"))
    if plan.choices:
        raise RunError(
            f"{path}: an interrupted `sfumato tune` cannot be resumed; start a new one (nothing was released)"
        )
    if plan.weights is not None:
        public_weights.verify(plan.weights)
    key = SecretKey.load(directory.key_file).using(config.privacy.noise_rng)
    splits = open_splits(config)
    began = directory.began()
    if differing := differences(began.get("environment"), environment()):
        raise RunError(
            f"{path}: {differing}; the same bits need the same software and device: resume there, or start a new "
            "run"
        )
    if began.get("fingerprint") != splits.train.fingerprint(key.mac):
        raise RunError(
            f"{path}: the training images or secret.key changed since the run began; restore them or start a new "
            "run"
        )
    with closing(make_progress(config.run.log)) as progress:
        _fit(directory, config, plan, splits, key, ledger, progress)


def _end(directory: RunDirectory) -> RunDirectory:
    """All that others will read lies on the disk (`write_result` came last), so the key may go."""
    directory.finish()
    write_report(directory.path)
    return directory


def _fit(
    directory: RunDirectory,
    config: TrainConfig,
    plan: Plan,
    splits: Splits,
    key: SecretKey,
    ledger: Ledger,
    progress: Progress,
) -> None:
    began = time.monotonic()
    held_out = splits.evaluated(config.data.validation)
    say_skipped(splits, progress)
    job = build(plan, splits.train, held_out, config.run.seed, key, progress)
    featured = time.monotonic()
    recorder = Recorder(directory, config, plan, job, ledger, progress)
    state, first = recorder.restore()
    progress.begin(plan.method, job.procedure.steps, "steps", done=first)
    replay_guard = ReplayGuard(directory.work / "sums.jsonl")
    state = run(
        job.procedure,
        ledger,
        key,
        state=state,
        first=first,
        replay_guard=replay_guard,
        after_step=recorder.after_step,
        noise=NOISES[config.privacy.noise].keeping,
    )
    trained = time.monotonic()
    _evaluate(directory, config, plan, job, state, held_out)
    save_model(directory, job.classifier(state), plan, ledger)
    ended = time.monotonic()
    seconds = {
        "features": featured - began,
        "training": trained - featured,
        "evaluation": ended - trained,
        "total": ended - began,
    }
    write_result(
        directory,
        ledger,
        {
            "seconds": seconds,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )


def save_model(directory: RunDirectory, classifier: Classifier, plan: Plan, ledger: Ledger) -> None:
    """The classifier, with the privacy statement in numbers."""
    promised = {name: getattr(plan, name) for name in ("epsilon", "delta", "relation", "insecure")}
    classifier.save(directory.path, promised | {"unit": ledger.unit, "spent": ledger.epsilon()})


def write_result(directory: RunDirectory, ledger: Ledger, measured: dict[str, Any]) -> None:
    """result.json, the last file of a run: what was spent, with which versions. measured: how long
    it took, and the like."""
    directory.write(
        "result.json",
        {
            "spent": {
                "epsilon": ledger.epsilon(),
                "delta": ledger.delta,
                "releases": ledger.releases,
                "epsilon_max": ledger.epsilon_max,
                "complete": True,
            },
            "seconds": {},
            "versions": _versions(),
            **measured,
        },
    )


def say_skipped(splits: Splits, progress: Progress) -> None:
    """To the owner of the images alone: how many files cannot be read is an exact count of private
    ones, so no file has it."""
    if count := len(splits.skipped):
        progress.say(
            f"skipped   {count:,} unreadable file{'s' if count > 1 else ''}, left out as asked",
            skipped=count,
        )


class Recorder:
    """What is written down after each step: checkpoints now and then, the learning curve, progress."""

    def __init__(
        self,
        directory: RunDirectory,
        config: TrainConfig,
        plan: Plan,
        job: Job,
        ledger: Ledger,
        progress: Progress,
    ):
        self._directory, self._config, self._job, self._ledger = directory, config, job, ledger
        self._progress = progress
        steps = job.procedure.steps
        self._meter = EpsilonMeter(
            [job.procedure.event(step) for step in range(steps)], plan.delta, plan.relation
        )
        learning = steps - job.learns_from
        self._curve = {
            job.learns_from + max(1, round(learning * k / CURVE_POINTS))
            for k in range(1, CURVE_POINTS + 1)
        }
        self._images = plan.sampler.expected_batch_size
        self._began = self._saved = time.monotonic()
        self._first = 0

    def restore(self) -> tuple[State | None, int]:
        """State and number of steps of the last checkpoint; (None, 0) without one."""
        found = checkpoint.load(self._directory.checkpoint, self._job.procedure.start())
        if found is None:
            self._directory.drop_metrics_after(0)
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
        self._directory.drop_metrics_after(self._first)
        return state, self._first

    def after_step(self, done: int, state: State) -> None:
        steps = self._job.procedure.steps
        epsilon = self._meter.after(done)
        now = time.monotonic()
        if done in self._curve:
            metric = {"step": done, "seconds": now - self._began, "epsilon": epsilon}
            if self._job.confusion is not None:
                metric["accuracy"] = accuracy(self._job.confusion(state))
            self._directory.append_metric(metric)
        if done == steps or now - self._saved > self._config.run.checkpoint_seconds:
            head = self._ledger.head
            facts = {
                "step": done,
                "seconds": now - self._began,
                "ledger_lines": head.lines,
                "ledger_hash": head.hash,
            }
            checkpoint.save(self._directory.checkpoint, state, facts)
            self._saved = time.monotonic()
        self._progress.advance(
            done, images=int((done - self._first) * self._images), epsilon=epsilon
        )


def _refuse_changed(directory: RunDirectory) -> None:
    """Before anything else is read: config.json and plan.json must be those that the ledger was
    begun with."""
    if Ledger.read(directory.path).context != directory.context():
        raise RunError(
            f"{directory.path}: config.json or plan.json was changed since the run began; restore them, or "
            "start a new run with the new settings"
        )


def _evaluate(
    directory: RunDirectory,
    config: TrainConfig,
    plan: Plan,
    job: Job,
    state: State,
    held_out: Source | None,
) -> None:
    if job.confusion is None or held_out is None:
        return
    counts = job.confusion(state)
    write_evaluation(directory, held_out, counts)
    if config.run.show_images:
        shown = misclassified.misclassified(job.classifier(state), held_out)
        directory.write("images.json", shown, mode=0o600)


def write_evaluation(directory: RunDirectory, source: Source, counts: Any) -> dict[str, Any]:
    """evaluation.json, and what is in it."""
    words = f"the {source.split} {'images' if source.rows is None else 'examples'} of {source.name}"
    evaluation = {
        "split": source.split,
        "n": int(counts.sum()),
        "confusion": counts.tolist(),
        "accuracy": accuracy(counts),
        "source": words,
    }
    directory.write("evaluation.json", evaluation)
    return evaluation


def open_splits(config: TrainConfig) -> Splits:
    where: DataConfig = config.data
    if config.method.model == by_name.GIVEN:
        splits = data.open_rows(Path(where.data), where.validation, read_options(config))
    else:
        splits = data.open(
            where.data,
            data_dir=where.data_dir,
            validation=where.validation,
            options=read_options(config),
        )
    return replace(splits, train=unit_batches.used(splits.train, config.units))


def read_options(config: TrainConfig) -> data.ReadOptions:
    where = config.data
    return data.ReadOptions(
        resize=where.resize,
        gray=where.gray,
        skip_unreadable=where.skip_unreadable,
        test_fraction=where.test_fraction,
        share=where.share,
        seed=config.run.seed,
        unit=config.units.unit,
        max_pixels=where.max_pixels,
    )


def counted(info: DataInfo, splits: Splits) -> DataInfo:
    """The facts with the counts of what could be read."""
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    counted = None if info.units is None else splits.train.examples
    return replace(
        info,
        shape=splits.train.shape,
        units=counted,
        counts={name: len(part) for name, part in parts.items() if part is not None},
    )


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """So that `resume` finds data and weights from any working directory."""
    where, weights, public = config.data, config.method.weights, config.method.public
    named = where.data in data.names()
    if weights is not None and Path(weights).expanduser().exists():
        weights = str(Path(weights).expanduser().resolve())
    return replace(
        config,
        data=replace(
            where,
            data=where.data if named else str(Path(where.data).expanduser().resolve()),
            data_dir=None if where.data_dir is None else where.data_dir.expanduser().resolve(),
        ),
        method=replace(
            config.method, weights=weights, public=public and public.expanduser().resolve()
        ),
    )


def _versions() -> dict[str, str]:
    return {
        name: importlib.metadata.version(name) for name in ("sfumato", "jax", "dp-accounting")
    } | {"python": platform.python_version()}
