"""What the commands do and print. One function per command."""

import json
from dataclasses import replace
from pathlib import Path

from sfumato.core import files
from sfumato.core.errors import ArgumentError, RunError
from sfumato.data.listing import left_out_words
from sfumato.plan import noise_bands, recipes, samplers
from sfumato.plan.config import FeaturesConfig, Log, Published, TrainConfig
from sfumato.plan.plan import Plan
from sfumato.plan.recipes import Recipe
from sfumato.privacy.ledger import Ledger
from sfumato.report import RunFacts, as_text, privacy_statement, words, write_report
from sfumato.report.intervals import Score
from sfumato.report.verdict import verdicts
from sfumato.runs import auditing
from sfumato.runs import sweep as curves
from sfumato.runs import training as runs
from sfumato.runs import tune as tuning
from sfumato.runs.directory import RunDirectory
from sfumato.runs.estimate import Estimate, estimate
from sfumato.runs.rehearsal import Device, rehearse
from sfumato.runs.store import PRIVATE, write_store
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
        guess, problem = _guess(plan) if timed else (None, "")
        _print_plan(plan, guess, config.run.log == "json", problem)
        return
    _print_result(runs.train(config), config.run.log, warned=config.run.log == "bar")


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


def _guess(plan: Plan) -> tuple[Estimate | None, str]:
    """An estimate, or why there is none: a plan may be for a larger machine."""
    try:
        return estimate(plan), ""
    except ArgumentError as error:
        if error.argument != "physical":
            raise
        return None, f"none on this machine: {error}"


def _print_plan(plan: Plan, guess: Estimate | None, as_json: bool, problem: str) -> None:
    """problem: in place of a guess."""
    if as_json:
        seconds, memory = (None, None) if guess is None else (guess.seconds, guess.memory_bytes)
        print(
            json.dumps(
                plan.to_json()
                | {
                    "spends": plan.spends,
                    "estimated_seconds": seconds,
                    "estimated_memory_bytes": memory,
                    "warnings": plan.warnings(),
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
        ("sampler", samplers.describe(plan.sampler)),
        *(
            [
                (
                    "noise",
                    noise_bands.describe(
                        plan.releases[0], plan.settings, plan.sampler, plan.promise
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
        *([("estimate", problem)] if problem else []),
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
    for problem in plan.warnings():
        print(f"warning   {problem}")


def _print_result(directory: RunDirectory, log: str, warned: bool = False) -> None:
    """warned: what the public facts say against the plan was told before the run."""
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
        low, high = Score(right, evaluation["n"]).interval
        print(
            f"accuracy  {100 * evaluation['accuracy']:.2f} %  (95 % interval {100 * low:.2f} to {100 * high:.2f}, "
            f"{evaluation['n']:,} {evaluation['split']} images)"
        )
        for problem in verdicts(evaluation["confusion"], plan["classes"]):
            print(f"warning   {problem}")
    else:
        print("accuracy  not measured: there are no evaluation images")
    for problem in [] if warned else Plan.from_json(plan).warnings():
        print(f"warning   {problem}")
    ledger = Ledger.read(directory.path)
    _, _, neighbor = words.neighbors(ledger.relation, ledger.unit)
    print(
        f"privacy   epsilon {spent['epsilon']:.6g}, delta {spent['delta']:g}  ({spent['releases']} releases; {neighbor} of "
        "the training set)"
    )
    print(f"report    {directory.file('report.html')}")
    print(f"model     {directory.file('model.safetensors')}")
