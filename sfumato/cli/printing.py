"""What the commands that train print: the plan, the result."""

import json
from collections.abc import Iterator
from dataclasses import asdict

from sfumato.core import typed_json
from sfumato.data.listing import left_out_words
from sfumato.noise.banded import worth
from sfumato.plan.config import Log
from sfumato.plan.plan import Plan, read_plan
from sfumato.privacy.not_private import file_name
from sfumato.report import finding_measures, measures, words
from sfumato.report.facts import Evaluation, Result
from sfumato.report.intervals import Score
from sfumato.report.verdict import problems_of
from sfumato.runs.classifier import MODEL
from sfumato.runs.cost import Estimate
from sfumato.runs.directory import RunDirectory


def print_plan(plan: Plan, guess: Estimate | None, as_json: bool, problem: str) -> None:
    """guess: of time and memory, if it was asked for; problem: why there is none."""
    if as_json:
        seconds, memory = (None, None) if guess is None else (guess.seconds, guess.memory_bytes)
        print(
            json.dumps(
                plan.to_json()
                | {
                    "spends": typed_json.plain(plan.spends),
                    "estimated_seconds": seconds,
                    "estimated_memory_bytes": memory,
                    "warnings": plan.warnings(),
                }
            )
        )
        return
    for name, text in _lines(plan):
        print(f"{name:<9} {text}".replace(words.NBSP, " "))
    if problem:
        print(f"estimate  {problem}")
    if guess is not None:
        took, room = words.duration(guess.seconds), words.size(guess.memory_bytes)
        print(f"estimate  {took}, {room} of memory, on this machine".replace(words.NBSP, " "))
    for problem in plan.warnings() if plan.not_private is None else []:
        print(f"warning   {problem}")


def _lines(plan: Plan) -> Iterator[tuple[str, str]]:
    """What a plan does, line by line: what the line is about, and its text."""
    settings = plan.settings
    _, _, neighbor = words.neighbors(plan.relation, plan.whole_unit)
    grouped = ""
    if plan.images_per_unit is not None:
        most = words.plural(plan.images_per_unit, "image")
        grouped = f" {plan.unit}s (at most {most} of each)".replace(words.NBSP, " ")
    counts = f"{plan.n:,} training{grouped}, {plan.n_validation:,} validation, {plan.n_test:,} test"
    shape = "x".join(map(str, plan.shape))
    yield "data", f"{plan.name}: {counts} images, {shape}, {len(plan.classes)} {plan.task.many}"
    if plan.left_out:
        yield "left out", left_out_words(plan.left_out)
    features = f", {plan.features:,} features" if plan.features else ""
    trained = f"{plan.parameters:,} trained parameters{features}"
    yield "method", f"{plan.method} on {plan.model}: {trained}"
    if plan.weights:
        seen = plan.seen and f"; sees {plan.seen}"
        yield "weights", f"{plan.weights.words}; trained: {plan.trains or 'head'}{seen}"
    if plan.not_private is None:
        spends = f"epsilon {plan.spends:.6g} <= {plan.epsilon:g} at delta {plan.delta:g}"
        yield "privacy", f"{spends}, {neighbor}"
    else:
        yield "privacy", plan.not_private.words
    yield "sampler", plan.sampler.words
    if settings.momentum_of_sums is not None and plan.not_private is None:
        event = plan.releases[0].event
        yield "noise", worth(event, settings.momentum_of_sums, plan.sampler, plan.promise)
    for each in plan.releases:
        noise = f"noise multiplier {each.noise_multiplier:.6g}"
        yield "release", f"{each.count} x {each.name}, {noise}"
    yield from settings.lines(trains=plan.features is None)
    plain = typed_json.plain(settings)
    numbers = {k: v for k, v in plain.items() if not isinstance(v, str | bool)}
    yield "settings", ", ".join(f"{name} {value:g}" for name, value in numbers.items())


def print_result(directory: RunDirectory, log: Log, warned: bool = False) -> None:
    """What a finished run has learned and spent. warned: what the public facts say against the plan
    was told before the run."""
    result = typed_json.read(Result, directory.file("result.json"))
    evaluation = typed_json.read_if_there(Evaluation, directory.file("evaluation.json"))
    plan, spent = read_plan(directory.file("plan.json")), result.spent
    problems = problems_of(evaluation, plan.classes)
    if log == "json":
        found = evaluation and {
            "split": evaluation.split,
            "n": evaluation.n,
            "accuracy": evaluation.accuracy,
            "warnings": problems,
            **measures.as_json(evaluation),
        }
        told = {"event": "result", "run": str(directory.path), **typed_json.plain(asdict(spent))}
        told |= {} if plan.not_private is None else {"not_private": plan.not_private.words}
        told |= {"evaluation": found, "seconds": result.seconds}
        print(json.dumps(told | {"peak_memory_bytes": result.peak_memory_bytes}))
        return
    if evaluation:
        _print_total(evaluation)
        print(f"measures  {measures.short(evaluation, plan.classes)}")
        for problem in problems:
            print(f"warning   {problem}")
    else:
        print(f"accuracy  not measured: {_why_not_measured(plan, directory)}")
    for problem in [] if warned or plan.not_private is not None else plan.warnings():
        print(f"warning   {problem}")
    _, _, neighbor = words.neighbors(plan.relation, plan.whole_unit)
    print(
        f"privacy   epsilon {spent.epsilon:.6g}, delta {spent.delta:g}  ({spent.releases} releases; {neighbor} of "
        "the training set)"
        if plan.not_private is None
        else f"privacy   {plan.not_private.words}"
    )
    print(f"report    {directory.file('report.html')}")
    print(f"model     {directory.file(file_name(MODEL, {'epsilon': plan.epsilon}))}")


def _why_not_measured(plan: Plan, directory: RunDirectory) -> str:
    if not plan.n_validation and not plan.n_test:
        return "there are no evaluation images"
    return f"a held-out image could not be read; then `sfumato evaluate {directory.path}` can"


def _print_total(evaluation: Evaluation) -> None:
    told = f"{evaluation.n:,} {evaluation.split} images)"
    if evaluation.findings:
        print(f"accuracy  {finding_measures.mean_words(evaluation)}  ({told}")
        return
    low, high = Score(round(evaluation.accuracy * evaluation.n), evaluation.n).interval
    print(
        f"accuracy  {100 * evaluation.accuracy:.2f} %  (95 % interval {100 * low:.2f} to {100 * high:.2f}, {told}"
    )
