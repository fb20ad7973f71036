"""What a recipe would take at its full size, from published facts alone: nothing is downloaded, no
image is needed, no parameter is drawn. `sfumato train --recipe NAME --dry-run`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from sfumato.core import typed_json
from sfumato.core.checks import large_delta, positive, whole
from sfumato.data.source import DataInfo
from sfumato.networks import catalog
from sfumato.plan.config import TrainConfig
from sfumato.plan.making import make_plan
from sfumato.plan.plan import Plan
from sfumato.plan.public_facts import PublicWeights
from sfumato.plan.public_weights import input_of
from sfumato.plan.recipes import Point, Recipe
from sfumato.privacy import accountants, renyi
from sfumato.privacy.neighbors import ADD_OR_REMOVE
from sfumato.report import words
from sfumato.runs.cost import Cost, counted
from sfumato.train.sgd_settings import SGDSettings

DECODED, SENT, LINKED = 1.5e9, 16e9, 100e9
"""Of each device, bytes a second: pixels that its share of the host decodes (16 cores at 30 million
pixels a second), what reaches it over PCIe, and what it exchanges with others."""
NOISE = 50e-9
"""Seconds a number; noise is drawn once, by the host, whatever the number of devices."""


@dataclass(frozen=True)
class Device:
    """memory: GB. flops: floating-point operations per second, sustained. count: how many there are;
    the first two are of each."""

    memory: float
    flops: float
    count: int = 1

    def __post_init__(self) -> None:
        positive("device_memory", self.memory)
        positive("device_flops", self.flops)
        whole("devices", self.count)


def rehearse(config: TrainConfig, recipe: Recipe, point: Point, device: Device) -> str:
    """The report of the dry run. config: as `recipes.configured` makes it. Raises ArgumentError
    where settings do not fit."""
    facts = recipe.data
    info = DataInfo(
        facts.name,
        "",
        tuple(map(str, range(facts.classes))),
        facts.shape,
        {"train": facts.n, "test": facts.test},
    )
    plan = make_plan(config, info, _public(recipe, config))
    cost = counted(plan)
    lines = [
        *_published(recipe, point),
        *_privacy(plan, recipe, point),
        *_sizes(plan, cost),
        *_hardware(plan, cost, device),
    ]
    return "\n".join(f"{name:<10} {text}" for name, text in lines)


def _public(recipe: Recipe, config: TrainConfig) -> PublicWeights | None:
    """Weights that nobody looks at: what is known of them is the architecture and what they were
    learned from."""
    if recipe.weights is None or config.method.weights is not None:
        return None
    model = catalog.find(config.method.model)
    own = input_of(model.name, config.method.size, None) or model.input
    return PublicWeights(f"learned from {recipe.weights.learned_from}", "0" * 64, model.name, own)


Lines = Iterator[tuple[str, str]]
"""What each line is about, and its text."""


def _published(recipe: Recipe, point: Point) -> Lines:
    yield "recipe", f"{recipe.name}: {recipe.title}"
    accuracy = "not stated here" if point.accuracy is None else f"{point.accuracy:g} %"
    at = f"epsilon {point.epsilon:g}, delta {recipe.delta_as_published:g}"
    yield "published", f"test accuracy {accuracy} at {at}"
    yield "source", f"{recipe.paper}; {recipe.source}"
    if recipe.weights is not None:
        yield "weights", f"learned from {recipe.weights.learned_from}"
    if recipe.recalled:
        way_out = "see the comments in the recipe's file before you quote it"
        yield "caution", f"from memory in part: {way_out}"
    if recipe.assumed:
        yield "assumed", f"not the paper's: {', '.join(recipe.assumed)}"


def _privacy(plan: Plan, recipe: Recipe, point: Point) -> Lines:
    delta = plan.delta
    yield "sampler", f"n = {plan.n:,}, {plan.sampler.words}"
    for each in plan.releases:
        noise = f"noise multiplier {each.noise_multiplier:.6g}"
        yield "release", f"{each.count:,} x {each.name}, {noise}"
    if plan.not_private is not None:
        yield "privacy", plan.not_private.words
        return
    spends = f"epsilon {plan.spends:.6g} at delta {delta:g} by {_exact(plan)}"
    if problem := large_delta(delta, plan.n):
        yield "warning", problem
    if plan.relation != ADD_OR_REMOVE or not all(each.in_papers for each in plan.tally):
        others = "the papers' accountant is for other releases"
        yield "privacy", f"{spends}, {plan.relation}; {others}"
        return
    by_renyi = f"{renyi.epsilon(plan.tally, delta):.4g} by Rényi"
    yield "privacy", f"{spends}; {by_renyi}, the papers' accountant"
    if len(plan.releases) != 1:
        return
    (release,) = plan.releases
    exact = f"{release.noise_multiplier:.4f} by {_exact(plan)}"
    by_renyi = f"{renyi.noise_multiplier(release, plan.epsilon, delta):.4f} by Rényi"
    yield "noise", f"for epsilon {plan.epsilon:g}: {exact}, {by_renyi}"
    if point.noise_multiplier is not None:
        events, at = release.with_noise(point.noise_multiplier).tally, recipe.delta_as_published
        found = f"{accountants.epsilon(events, at):.3f} by {_exact(plan)}, {renyi.epsilon(events, at):.3f} by Rényi"
        given = f"the published {point.noise_multiplier:g} gives, at delta {at:g}"
        yield "", f"{given}, epsilon {found}"


def _exact(plan: Plan) -> str:
    if plan.sampler.expected_batch_size >= plan.n:
        return "exact composition"
    return accountants.describe(plan.tally, plan.delta, plan.relation).split()[0]


def _sizes(plan: Plan, cost: Cost) -> Lines:
    shape = (plan.input or catalog.find(plan.model).input).shape(plan.shape)
    trained = plan.trains or ("head" if plan.features else "all")
    settings = [
        f"{name} {value if isinstance(value, str) else format(value, 'g')}"
        for name, value in typed_json.plain(plan.settings).items()
        if name != "physical_batch_size"
    ]
    sizes = f"{plan.model}, {'x'.join(map(str, shape))}: {cost.parameters:,} parameters"
    rows = f", on {plan.features:,} features" if plan.features else ""
    yield "network", f"{sizes}, trained: {trained}, {plan.parameters:,}{rows}"
    yield "settings", ", ".join(settings)
    each = f"{cost.forward / 1e9:.3g} G multiply-adds per image forward"
    yield "cost", f"{each}; {cost.total:.3g} operations in all"


def _hardware(plan: Plan, cost: Cost, device: Device) -> Lines:
    """What fits, and how long it takes at the rate that was stated."""
    if plan.features:
        host = f"{cost.rows / 1e9:.3g} GB of rows and head on the host"
        yield "memory", f"{cost.state / 1e9:.3g} GB of parameters, {host}"
        yield from _time(cost, device)
        return
    assert isinstance(plan.settings, SGDSettings)
    views = max(1, plan.settings.views)
    fits = int(max(0.0, device.memory * 1e9 - cost.state - cost.held.fixed) // cost.held.each)
    room = (
        f"room for {fits:,} examples at once"
        if fits
        else "too little for one example; take fewer views or rematerialize"
    )
    each = f"{cost.held.each / 1e6:.4g} MB per example, {views} view{'s' if views > 1 else ''}"
    state = f"{(cost.state + cost.held.fixed) / 1e9:.3g} GB of parameters, copies and gradients"
    yield "memory", f"{state}, {each}; {device.memory:g} GB: {room}"
    yield from _time(cost, device)


def _time(cost: Cost, device: Device) -> Lines:
    """Images are decoded and sent while the device computes; noise and sums over devices wait for it."""
    n = device.count
    computing = cost.total / (device.flops * n)
    reading = {"decoding": cost.read / (DECODED * n), "transfer": cost.read / (SENT * n)}
    waiting = {
        "noise": cost.noisy * NOISE,
        "sums over devices": 2 * (n - 1) / n * cost.summed / LINKED,
    }
    total = max(computing, *reading.values()) + sum(waiting.values())
    rate = f"{device.flops:.3g} operations per second"
    devices = "one device" if n == 1 else f"{n} devices"
    told = [
        f"{name} {_duration(seconds)}" for name, seconds in (reading | waiting).items() if seconds
    ]
    stated = f"at the {rate} that were stated (--device-flops, --devices)"
    operations = f"operations {_duration(computing)}"
    yield "time", f"{_duration(total)} on {devices}, {stated}: {operations}"
    then = f"; then {', '.join(told[2:])}" if told[2:] else ""
    yield "", f"meanwhile {', '.join(told[:2])}{then}"


def _duration(seconds: float) -> str:
    return words.duration(seconds).replace(words.NBSP, " ")
