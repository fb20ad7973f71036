"""`sfumato pretrain`: public images -> a file of weights that `--weights` takes. NOT private."""

import json
import sys
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import jax

from sfumato import weights
from sfumato.core import files, plugins
from sfumato.core.errors import ArgumentError, RunError
from sfumato.core.keys import public_stream
from sfumato.data.source import Source
from sfumato.features import by_name
from sfumato.networks import catalog
from sfumato.networks.input import Input, Prepared
from sfumato.runs.asked import PretrainConfig
from sfumato.runs.directory import refuse_existing
from sfumato.runs.progress import Progress, make_progress
from sfumato.train import checkpoint
from sfumato.train.evaluation import accuracy, confusion
from sfumato.train.public_training import Pretraining, State, predictor

WARNING = (
    "NOT PRIVATE: no noise is added, and the weights may give away every image they are learned from. Only for images "
    "that are public."
)


def pretrain(config: PretrainConfig) -> None:
    """Train, write the weights, print the accuracy. The same command continues a training that was
    stopped."""
    config.settings.check()
    config.data.check()
    if config.out.suffix != ".safetensors":
        raise ArgumentError("out", str(config.out), "give a file name that ends in .safetensors")
    refuse_existing(config.out)
    where = config.data
    splits = where.opened(config.settings.seed)
    splits.train.task.need_classes("pretrain", config.model)
    training = Pretraining(_network(config, splits.train), splits.train, config.settings)
    print(f"sfumato: {WARNING}", file=sys.stderr)
    with closing(make_progress(config.log)) as progress:
        network = training.network(_learn(config, training, progress))
    shape = network.input.shape(splits.train.shape)
    weights.save(config.out, network, config.model, splits.train.class_names, shape)
    files.remove_directory(_work(config))
    _tell(config, network, splits.evaluated(where.validation))


def _network(config: PretrainConfig, source: Source) -> Prepared:
    """With random weights. Raises ArgumentError for a shape that the file could not state."""
    if plugins.is_name(config.model):
        raise ArgumentError(
            "model",
            config.model,
            "is not in `sfumato models`, whose names weights are stored under",
        )
    given: Input = catalog.find(config.model).input
    given = given if config.size is None else replace(given, size=config.size)
    height, width, _ = given.shape(source.shape)
    if height != width:
        raise ArgumentError(
            "size",
            config.size,
            f"the images are {height}x{width}; give a --size, or a --resize to squares",
        )
    key = jax.random.key(
        int(public_stream(config.settings.seed, "initial weights").integers(2**31))
    )
    return by_name.network(config.model, source.shape, len(source.class_names), key, given)


def _learn(config: PretrainConfig, training: Pretraining, progress: Progress) -> State:
    """All epochs, a checkpoint after each."""
    work, settings = _work(config), config.settings
    facts = {
        "model": config.model,
        "size": config.size,
        "data": training.source.name,
        "n": len(training.source),
        "settings": asdict(settings),
    }
    state, first = training.start(), 0
    if (found := checkpoint.load(work, state)) is not None:
        state, stored = found
        first = stored.pop("epoch")
        if stored != facts:
            raise RunError(
                f"{work}: left by a training run with other settings ({stored}); delete it, or choose another --out"
            )
    progress.begin(
        "pretraining (not private)",
        settings.epochs * training.steps_per_epoch,
        "steps",
        done=first * training.steps_per_epoch,
    )
    for epoch in range(first, settings.epochs):
        before = epoch * training.steps_per_epoch
        state = training.epoch(state, epoch, partial(_advance, progress, before))
        checkpoint.save(work, state, {**facts, "epoch": epoch + 1})
    return state


def _advance(progress: Progress, before: int, done: int) -> None:
    progress.advance(before + done)


def _work(config: PretrainConfig) -> Path:
    return config.out.with_name(f".{config.out.name}.work")


def _tell(config: PretrainConfig, network: Prepared, held_out: Source | None) -> None:
    found = None if held_out is None else accuracy(confusion(predictor(network), held_out))
    if config.log == "json":
        print(
            json.dumps(
                {"event": "result", "weights": str(config.out), "private": False, "accuracy": found}
            )
        )
        return
    if found is not None and held_out is not None:
        print(f"accuracy  {100 * found:.2f} %  ({len(held_out):,} {held_out.split} images)")
    print(f"weights   {config.out}  (for --weights; {config.model})")
    print(f"private   {WARNING}")
