"""What the commands do and print. One function per command."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfumato import data
from sfumato.core import files
from sfumato.core.checks import large_delta
from sfumato.core.errors import ArgumentError, DataError, RunError, on_one_line
from sfumato.data.listing import left_out_words
from sfumato.noise.banded import worth
from sfumato.plan import recipes
from sfumato.plan.config import FeaturesConfig, Log, Published, TrainConfig
from sfumato.plan.plan import Plan
from sfumato.plan.recipes import Recipe
from sfumato.privacy.ledger import Ledger
from sfumato.report import RunFacts, as_text, privacy_statement, words, write_report
from sfumato.report.intervals import clopper_pearson
from sfumato.report.verdict import verdicts
from sfumato.runs import auditing
from sfumato.runs import sweep as curves
from sfumato.runs import training as runs
from sfumato.runs import tune as tuning
from sfumato.runs.directory import RunDirectory
from sfumato.runs.estimate import Estimate, estimate
from sfumato.runs.rehearsal import Device, rehearse
from sfumato.runs.store import PRIVATE, write_store
from sfumato.solve.linear_settings import weakness
from sfumato.train.sgd_settings import SGDSettings


def train(config: TrainConfig, published: Published | None = None, timed: bool = True) -> None:
    """published: the recipe that the configuration fills up, if any. timed: a dry run estimates
    time and memory."""
    if published is not None:
        recipe, point = recipes.find(published.recipe)
        config = recipes.configured(recipe, point, config)
        if config.run.dry_run and published.scale is None:
            print(
                rehearse(
                    config, recipe, point, Device(published.device_memory, published.device_flops)
                )
            )
            return
        config = _from_recipe(config, recipe, published.scale)
    if config.run.dry_run:
        plan = runs.plan_for(config)
        _print_plan(plan, estimate(plan) if timed else None, as_json=config.run.log == "json")
        return
    _print_result(runs.train(config), config.run.log)


def _from_recipe(config: TrainConfig, recipe: Recipe, scale: float | None) -> TrainConfig:
    """Ready to run on the data that are at hand; says what was scaled."""
    if recipe.weights is not None and config.method.weights is None:
        raise ArgumentError(
            "weights",
            None,
            f"{recipe.name} fine-tunes a {config.method.model}; give its public weights",
        )
    if scale is None:
        return config
    n = runs.describe(replace(config, method=replace(config.method, weights=None))).examples
    config = replace(config, data=replace(config.data, share=recipes.share_of(recipe, scale, n)))
    config, told = recipes.scaled(recipe, config, scale, runs.describe(config).examples)
    if config.run.log == "bar":
        print(f"recipe    {recipe.name}, {told}")
    return config


def features(config: FeaturesConfig) -> None:
    store = write_store(config)
    rows = ", ".join(f"{count:,} {split}" for split, count in store.counts.items())
    print(
        f"features  {config.out}: {rows} rows of {store.features:,} numbers ({store.dtype}), model {store.model}"
    )
    print(f"private   {PRIVATE}")


def sweep(
    base: TrainConfig, epsilons: str, methods: str, out: Path, repeats: int, log: Log
) -> None:
    print(
        curves.sweep(
            curves.SweepConfig(
                base, _numbers("epsilon", epsilons), tuple(methods.split(",")), out, repeats, log
            )
        )
    )
    print(f"\ncurve     {out / 'sweep.png'}\npage      {out / 'sweep.html'}")


def tune(base: TrainConfig, methods: str, fits: float, out: Path, log: Log) -> None:
    print(tuning.tune(tuning.TuneConfig(base, tuple(methods.split(",")), fits, out, log)))


def _numbers(argument: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(
            argument, text, "give numbers with commas between them, such as 0.1,1,8"
        ) from None


def resume(path: Path, log: Log | None) -> None:
    directory = runs.resume(path, log)
    _print_result(directory, log or str(files.read_json(directory.file("config.json"))["log"]))


def report(path: Path, with_audit: bool = False) -> None:
    if not RunDirectory.open(path).file("result.json").exists():
        raise RunError(f"{path}: the run is not complete; `sfumato resume {path}` finishes it")
    written = write_report(path, with_audit)
    print(as_text(privacy_statement(RunFacts.load(path, with_audit))))
    print(f"\nreport: {written}")


def audit(
    path: Path, attack: str, size: int | None, images: int, seed: int | None, log: Log
) -> None:
    found = auditing.audit(path, attack, size, images, seed, log)
    if log == "json":
        print(json.dumps({"event": "audit", "run": str(path), "results": auditing.as_json(found)}))
        return
    print(auditing.summary(found))
    print(f"report    {path / 'report.html'}")
    if found.unpaid:
        print(
            f"kept back {', '.join(found.unpaid)}: of private images and not paid for, so in {path / 'audit.json'} alone "
            "(`sfumato report --with-audit` shows it)"
        )


def list_data() -> None:
    for name in data.names():
        facts = data.published(name)
        height, width, colors = facts.shape
        counts = " + ".join(f"{count:,} {split}" for split, count in facts.counts.items())
        print(
            f"{name:<14} {height}x{width}x{colors}  {len(facts.classes):>3} classes  {counts:<28} {facts.title}"
        )


def data_info(name: str, data_dir: Path | None, unit: str | None = None) -> None:
    """What is published (for a named data set) and what is on this machine. unit: as for `sfumato
    train`, to be counted."""
    if name in data.names():
        facts = data.published(name)
        print(f"{facts.title}\n  address  {facts.address}\n  license  {facts.license}")
        for file in facts.files:
            print(f"  file     {file.name}  (md5 {file.md5})")
    try:
        found = data.describe(
            name, data_dir=data_dir, options=data.ReadOptions(unit=unit), download=False
        )
    except DataError as error:
        if name not in data.names():
            raise
        print(f"  here     no: {error}")
        return
    shape = "x".join(map(str, found.shape)) if found.shape else "unknown size"
    counts = ", ".join(f"{count:,} {split}" for split, count in found.counts.items())
    print(
        f"  here     {found.path}\n  images   {counts}; {shape}\n  classes  {', '.join(map(on_one_line, found.classes))}"
    )
    if found.left_out:
        print(f"  left out {left_out_words(found.left_out)}")
    if found.units is not None:
        print(f"  units    {found.units:,} train")


def _print_plan(plan: Plan, guess: Estimate | None, as_json: bool) -> None:
    if as_json:
        seconds, memory = (None, None) if guess is None else (guess.seconds, guess.memory_bytes)
        print(
            json.dumps(
                plan.to_json()
                | {
                    "spends": plan.spends,
                    "estimated_seconds": seconds,
                    "estimated_memory_bytes": memory,
                }
            )
        )
        return
    _, _, neighbor = words.neighbors(plan.relation, words.unit(plan.unit, plan.images_per_unit))
    most = plan.images_per_unit
    grouped = (
        ""
        if most is None
        else f" {plan.unit}s (at most {words.plural(most, 'image')} of each)".replace(
            words.NBSP, " "
        )
    )
    lines = [
        (
            "data",
            f"{plan.name}: {plan.n:,} training{grouped}, {plan.n_validation:,} validation, {plan.n_test:,} test images, "
            f"{'x'.join(map(str, plan.shape))}, {len(plan.classes)} classes",
        ),
        *([("left out", left_out_words(plan.left_out))] if plan.left_out else []),
        (
            "method",
            f"{plan.method} on {plan.model}: {plan.parameters:,} trained parameters"
            + (f", {plan.features:,} features" if plan.features else ""),
        ),
        *(
            [
                (
                    "weights",
                    f"{plan.weights.name}, SHA-256 {plan.weights.sha256}; trained: {plan.trains or 'head'}",
                )
            ]
            if plan.weights
            else []
        ),
        (
            "privacy",
            f"epsilon {plan.spends:.6g} <= {plan.epsilon:g} at delta {plan.delta:g}, {neighbor}",
        ),
        ("sampler", plan.sampler.words),
        *(
            [
                (
                    "noise",
                    worth(
                        plan.releases[0].event,
                        plan.settings.momentum_of_sums,
                        plan.sampler,
                        plan.promise,
                    ),
                )
            ]
            if isinstance(plan.settings, SGDSettings)
            else []
        ),
        *(
            ("release", f"{each.count} x {each.name}, noise multiplier {each.noise_multiplier:.6g}")
            for each in plan.releases
        ),
        (
            "settings",
            ", ".join(
                f"{name} {value:g}"
                for name, value in plan.to_json()["settings"].items()
                if not isinstance(value, str)
            ),
        ),
        *(
            []
            if guess is None
            else [
                (
                    "estimate",
                    f"{words.duration(guess.seconds)}, {words.size(guess.memory_bytes)} of memory, on this machine",
                )
            ]
        ),
    ]
    for name, text in lines:
        print(f"{name:<9} {text}".replace(words.NBSP, " "))
    _print_weakness(plan.to_json())


def _print_weakness(plan: dict[str, Any]) -> None:
    if problem := weakness(plan["epsilon"], plan["n"], len(plan["classes"]), plan["mu"]):
        print(f"warning   {problem}")
    if problem := large_delta(plan["delta"], plan["n"]):
        print(f"warning   {problem}")


def _print_result(directory: RunDirectory, log: str) -> None:
    result = files.read_json(directory.file("result.json"))
    spent, found = result["spent"], directory.file("evaluation.json")
    evaluation = files.read_json(found) if found.exists() else None
    plan = files.read_json(directory.file("plan.json"))
    if log == "json":
        accuracy = evaluation and {
            name: evaluation[name] for name in ("split", "n", "accuracy")
        } | {"warnings": verdicts(evaluation["confusion"], plan["classes"])}
        print(
            json.dumps(
                {
                    "event": "result",
                    "run": str(directory.path),
                    **spent,
                    "evaluation": accuracy,
                    "seconds": result["seconds"],
                    "peak_memory_bytes": result.get("peak_memory_bytes"),
                }
            )
        )
        return
    if evaluation:
        right = round(evaluation["accuracy"] * evaluation["n"])
        low, high = clopper_pearson(right, evaluation["n"])
        print(
            f"accuracy  {100 * evaluation['accuracy']:.2f} %  (95 % interval {100 * low:.2f} to {100 * high:.2f}, "
            f"{evaluation['n']:,} {evaluation['split']} images)"
        )
        for problem in verdicts(evaluation["confusion"], plan["classes"]):
            print(f"warning   {problem}")
    else:
        print("accuracy  not measured: there are no evaluation images")
    _print_weakness(plan)
    ledger = Ledger.read(directory.path)
    _, _, neighbor = words.neighbors(ledger.relation, ledger.unit)
    print(
        f"privacy   epsilon {spent['epsilon']:.6g}, delta {spent['delta']:g}  ({spent['releases']} releases; {neighbor} of "
        "the training set)"
    )
    print(f"report    {directory.file('report.html')}")
    print(f"model     {directory.file('model.safetensors')}")
