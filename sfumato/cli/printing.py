"""What the commands that train print: the plan, the result."""

import json
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
    _, _, neighbor = words.neighbors(plan.relation, plan.whole_unit)
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
            f"{'x'.join(map(str, plan.shape))}, {len(plan.classes)} {plan.task.many}",
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
                    f"{plan.weights.words}; trained: {plan.trains or 'head'}"
                    f"{plan.seen and f'; sees {plan.seen}'}",
                )
            ]
            if plan.weights
            else []
        ),
        (
            "privacy",
            f"epsilon {plan.spends:.6g} <= {plan.epsilon:g} at delta {plan.delta:g}, {neighbor}"
            if plan.not_private is None
            else plan.not_private.words,
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
            if plan.settings.momentum_of_sums is not None and plan.not_private is None
            else []
        ),
        *(
            ("release", f"{each.count} x {each.name}, noise multiplier {each.noise_multiplier:.6g}")
            for each in plan.releases
        ),
        *plan.settings.lines(trains=plan.features is None),
        (
            "settings",
            ", ".join(
                f"{name} {value:g}"
                for name, value in typed_json.plain(plan.settings).items()
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
    for problem in plan.warnings() if plan.not_private is None else []:
        print(f"warning   {problem}")


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
