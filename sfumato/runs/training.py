"""`sfumato train` and `sfumato resume`: from a configuration to a finished run directory."""

import time
import warnings
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato import data
from sfumato.core import files, plugins, typed_json
from sfumato.core.devices import here
from sfumato.core.errors import ArgumentError, DataError, RunError
from sfumato.core.keys import SecretKey
from sfumato.data import finite
from sfumato.data.copies import copies_in
from sfumato.data.findings import untaught
from sfumato.data.formats.arrow_files import is_hub
from sfumato.data.lazy import LazyDataset
from sfumato.data.listing import left_out_words
from sfumato.data.source import DataInfo, Splits
from sfumato.features import by_name
from sfumato.noise import NOISES
from sfumato.plan import public_weights, unit_batches
from sfumato.plan.config import (
    EVERYTHING,
    LayoutConfig,
    Log,
    PrivacyConfig,
    TrainConfig,
    read_config,
)
from sfumato.plan.making import make_plan
from sfumato.plan.plan import Plan, read_plan
from sfumato.privacy.ledger import Ledger
from sfumato.runs import tracking
from sfumato.runs.classifier import Classifier
from sfumato.runs.directory import RunDirectory, refuse_existing
from sfumato.runs.held_out import Measuring, evaluate, tell
from sfumato.runs.jobs import Job, build
from sfumato.runs.progress import Progress, Quiet, make_progress
from sfumato.runs.recorder import Recording, carry_out
from sfumato.runs.session import (
    beginning,
    end,
    of_source,
    refuse_changed,
    refuse_elsewhere,
    resources,
    resumable,
    write_result,
)
from sfumato.runs.together import (
    JointLedger,
    agree_on_beginning,
    agree_on_plan,
    made,
    parted,
    refuse_apart,
)
from sfumato.train.loop import State, rehearse


def find(config: TrainConfig) -> LazyDataset:
    """The data a configuration names, listed once for `described` and `opened`."""
    where, options = config.data, config.options
    if config.method.model == by_name.GIVEN:
        return data.find_rows(Path(where.data), options)
    return data.find(where.data, where.data_dir, options, download=not config.run.dry_run)


def described(found: LazyDataset, config: TrainConfig) -> DataInfo:
    """Its public facts. Warns where rows belong together and the promise is about each of them."""
    rows = config.method.model == by_name.GIVEN and Path(config.data.data).expanduser()
    if rows and config.units.unit is None and (rows / "train.units.npy").is_file():
        warnings.warn(
            f"{config.data.data}: its rows were made with --unit, and this promise is about one row; give --unit units "
            "for one about a unit with all its rows",
            stacklevel=2,
        )
    info = found.describe(config.data.validation, config.options)
    return unit_batches.named(info, config.units)


def opened(found: LazyDataset, config: TrainConfig) -> Splits:
    """Its examples, ready to be read."""
    splits = found.open(config.data.validation, config.options)
    return replace(splits, train=unit_batches.used(splits.train, config.units))


def describe(config: TrainConfig) -> DataInfo:
    """The public facts of the data a configuration names."""
    where = config.data
    try:
        return described(find(config), config)
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


def train(config: TrainConfig, layout: LayoutConfig = EVERYTHING) -> RunDirectory:
    """Run from the beginning. What is wrong with the configuration is found before anything is written;
    an image that cannot be read, when it is read: if nothing was released by then, nothing is left."""
    config.check()
    tracking.check(config.run.log_to)
    layout.begin()
    config = _with_absolute_paths(config)
    if here().first:
        refuse_existing(config.out)
    found = find(config)
    info = described(found, config)
    if config.run.show_images:
        info.task.need_classes("show_images", True)
    make_plan(config, info)  # refuse what cannot be planned before the images are read
    splits = opened(found, config)
    problems = finite.checked(splits, splits.evaluated(config.data.validation))
    plan = make_plan(config, counted(info, splits))
    refuse_apart(plan)
    directory, key, job = _begun(config, plan, splits)
    with (
        resumable(directory.path),
        JointLedger.at(directory.path) as ledger,
        closing(_progress(config)) as progress,
    ):
        tell_left_out(plan.left_out, progress)
        copied = copies_in(splits.train, splits.evaluated(config.data.validation))
        lost = untaught(splits.train.labels, plan.classes) if not plan.task.exclusive else ()
        tell((*plan.warnings(), *problems, *lost, *copied), progress)
        try:
            _fit(directory, config, plan, splits, key, ledger, progress, job)
        except (DataError, ArgumentError):  # nothing was paid: the same command may begin again
            if not ledger.releases and here().first:
                directory.discard()
            raise
    return _ended(directory)


def _begun(
    config: TrainConfig, plan: Plan, splits: Splits
) -> tuple[RunDirectory, SecretKey, Job | None]:
    """A new directory and its key: process 0 makes them, the others read them. And the job, if its steps
    are known to fit the memory; several processes find that out together, before the first payment.
    """
    agree_on_plan(typed_json.plain(config), plan.to_json())
    job = None
    if here().first:
        key = secret_key(config.privacy)
        began = beginning(of_source(splits.train, key))
        if here().processes == 1:
            job = _rehearsed(config, plan, splits, key)
        RunDirectory.create(config.out, key, typed_json.plain(config), plan.to_json(), began)
    try:
        directory = made(config.out)
        if not here().first:
            key = SecretKey.load(directory.key_file).using(config.privacy.noise_rng)
            began = beginning(of_source(splits.train, key))
        agree_on_beginning(key, began)
    except RunError:
        if here().first:
            RunDirectory(config.out).discard()
        raise
    return directory, key, job


def _ended(directory: RunDirectory) -> RunDirectory:
    if here().first:
        end(directory)
    parted(directory.path)
    return directory


def _progress(config: TrainConfig) -> Progress:
    return make_progress(config.run.log if here().first else "quiet")


def secret_key(privacy: PrivacyConfig) -> SecretKey:
    """A new one, of the generator that was asked for."""
    seed = privacy.insecure_seed
    key = SecretKey.from_entropy() if seed is None else SecretKey.from_insecure_seed(seed)
    return key.using(privacy.noise_rng)


def resume(path: Path, log: Log | None = None, layout: LayoutConfig = EVERYTHING) -> RunDirectory:
    """Continue a run that was stopped, on these devices or others of their kind; a complete one only
    gets its report anew."""
    layout.begin()
    directory = RunDirectory.open(path)
    refuse_changed(directory)
    if not directory.complete:
        # The ledger is the lock: from here on this process, and those that it works with, alone work
        # on the run.
        with resumable(directory.path), JointLedger.at(directory.path) as ledger:
            if not directory.complete:  # else another ended it just before
                _continue(directory, log, ledger)
    return _ended(directory)


def _continue(directory: RunDirectory, log: Log | None, ledger: Ledger) -> None:
    """Go on from the last checkpoint, if everything that the bits of a release depend on is as it
    was."""
    path = directory.path
    if here().first:
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
    refuse_apart(plan)
    agree_on_plan(typed_json.plain(config), plan.to_json())
    refuse_elsewhere(directory, of_source(splits.train, key), "training images")
    agree_on_beginning(key, directory.began())
    with closing(_progress(config)) as progress:
        _fit(directory, config, plan, splits, key, ledger, progress)


def _rehearsed(config: TrainConfig, plan: Plan, splits: Splits, key: SecretKey) -> Job | None:
    """The job of a network, whose steps are known to fit the memory. None for fixed features: they are
    computed once the run has a directory."""
    if plan.features is not None:
        return None
    held_out = splits.evaluated(config.data.validation)
    job = build(plan, splits.train, held_out, config.run.seed, key, Quiet())
    rehearse(job.procedure)
    return job


def _fit(
    directory: RunDirectory,
    config: TrainConfig,
    plan: Plan,
    splits: Splits,
    key: SecretKey,
    ledger: Ledger,
    progress: Progress,
    job: Job | None = None,
) -> None:
    """job: where it is made already."""
    began = time.monotonic()
    held_out = splits.evaluated(config.data.validation) if here().first else None
    say_skipped(splits, progress)
    job = job or build(plan, splits.train, held_out, config.run.seed, key, progress)
    featured = time.monotonic()
    measuring = Measuring(progress)

    def point(state: State) -> dict[str, Any]:
        with measuring.if_readable():
            return job.point(state)
        return {}

    recording = Recording(
        point, job.learns_from, plan.sampler.expected_batch_size, config.run.checkpoint_seconds
    )
    noise = NOISES[config.privacy.noise].keeping
    log_to = config.run.log_to if here().first else None
    with tracking.followed(directory, log_to, key.fingerprint, progress) as directory:
        state = carry_out(directory, job.procedure, ledger, key, recording, progress, noise)
        trained = time.monotonic()
        if not here().first:
            return
        if sides := job.sides(state):
            progress.say(f"sides     {sides}", sides=sides)
        with measuring.if_readable():
            evaluate(directory, config.run.show_images, job, state, held_out)
        save_model(directory, job.classifier(state), plan, ledger)
        ended = time.monotonic()
        seconds = {
            "features": featured - began,
            "training": trained - featured,
            "evaluation": ended - trained,
            "total": ended - began,
        }
        write_result(directory, ledger, resources(seconds))


def save_model(directory: RunDirectory, classifier: Classifier, plan: Plan, ledger: Ledger) -> None:
    """The classifier, with the privacy statement in numbers."""
    promised = {name: getattr(plan, name) for name in ("epsilon", "delta", "relation", "insecure")}
    if plan.not_private is not None:
        promised["not_private"] = plan.not_private.words
    classifier.save(directory.path, promised | {"unit": ledger.unit, "spent": ledger.epsilon()})


def say_skipped(splits: Splits, progress: Progress) -> None:
    """To the owner of the images alone: how many cannot be read is an exact count of private ones, so
    no file has it."""
    if count := len(splits.skipped):
        progress.say(
            f"skipped   {count:,} unreadable image{'s' if count > 1 else ''}, left out as listed",
            skipped=count,
        )


def open_splits(config: TrainConfig) -> Splits:
    """What `find` and `opened` give."""
    return opened(find(config), config)


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
    elsewhere = plugins.is_name(where.data) or is_hub(Path(where.data))
    named = where.data in data.names() or elsewhere
    listed = where.skip_unreadable
    if weights is not None and Path(weights).expanduser().exists():
        weights = str(Path(weights).expanduser().resolve())
    return replace(
        config,
        data=replace(
            where,
            data=where.data if named else str(Path(where.data).expanduser().resolve()),
            data_dir=None if where.data_dir is None else where.data_dir.expanduser().resolve(),
            skip_unreadable=None if listed is None else listed.expanduser().resolve(),
        ),
        method=replace(
            config.method, weights=weights, public=public and public.expanduser().resolve()
        ),
    )
