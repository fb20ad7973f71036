"""The privacy statement: what was promised, to whom, how it was kept and where it ends, for a data
protection officer.

Every sentence is about this run. The bounds on an attacker follow from the definition alone: for
every test, with false positive rate f and true positive rate t, an (ε, δ) guarantee between
neighboring data sets means
    t <= e^ε f + δ       and, with the two data sets exchanged,       1 - f <= e^ε (1 - t) + δ
(Wasserman & Zhou 2010; Kairouz, Oh & Viswanath 2015). A composition of releases holds for every ε
with a δ(ε) of its own; the smallest of these bounds is what its trade-off curve allows (Dong, Roth
& Su 2019).
"""

import math
from dataclasses import dataclass
from typing import Any

from sfumato.core import generators
from sfumato.core.checks import large_delta
from sfumato.privacy.meaning import LARGE_EPSILON, largest_true_positive_rate
from sfumato.privacy.releases import Release
from sfumato.privacy.risks import FALSE_POSITIVE_RATES
from sfumato.report import noise_limits, words
from sfumato.report.facts import RunFacts, printable

AUDITS = "What attacks could measure"
"""The title of the report's section."""


@dataclass(frozen=True)
class Paragraph:
    """A heading, its sentences, and a list that may follow them."""

    title: str
    text: str
    items: tuple[str, ...] = ()


@dataclass(frozen=True)
class AttackBound:
    """At this false positive rate, no attacker's true positive rate is higher."""

    false_positive_rate: float
    true_positive_rate: float


def attack_bounds(facts: RunFacts) -> tuple[AttackBound, ...]:
    """From the whole curve of the releases where it is known, which is far less than what one (ε,
    δ) allows."""
    epsilon, delta = facts.spent.epsilon, facts.spent.delta
    known = dict(facts.risks.recognized) if facts.risks is not None else {}
    return tuple(
        AttackBound(f, min(largest_true_positive_rate(epsilon, delta, f), known.get(f, 1.0)))
        for f in FALSE_POSITIVE_RATES
    )


def group_guarantee(epsilon: float, delta: float, k: int) -> tuple[float, float]:
    """(ε, δ) for k units at once: chaining the definition k times gives kε and δ (1 + e^ε + ... +
    e^(k-1)ε)."""
    return k * epsilon, min(
        1.0, delta * sum(math.exp(min(i * epsilon, LARGE_EPSILON)) for i in range(k))
    )


def warnings(facts: RunFacts) -> list[str]:
    """What a reader must know before anything else."""
    found = []
    if facts.not_private:
        found.append(f"{facts.not_private[0].upper()}{facts.not_private[1:]}.")
    if facts.insecure:
        found.append(
            "NOT PRIVATE: fixed noise seed. Anyone can compute the noise of this run and subtract it. "
            f"Use it for tests, never for {facts.plan.unit}s that need protection."
        )
    if facts.overspent:
        spent, plan = facts.spent, facts.plan
        found.append(
            f"More was spent (ε = {words.epsilon(spent.epsilon)}, δ = {words.power(spent.delta)}) than was "
            f"promised (ε = {words.number(plan.epsilon)}, δ = {words.power(plan.delta)}). "
            "Do not publish this model under its promise."
        )
    if problem := large_delta(facts.spent.delta, facts.plan.n):
        found.append(f"{problem[0].upper()}{problem[1:]}.")
    if not facts.spent.complete:
        found.append(
            "INCOMPLETE RUN: training has not finished. The figures below count what has been released so "
            "far. If it was stopped because of what it had shown, quote the promised ε, not the ε spent."
        )
    return found


def _promise(facts: RunFacts) -> Paragraph:
    plan, spent = facts.plan, facts.spent
    differ, _, _ = words.neighbors(plan.relation, plan.whole_unit)
    factor = words.number(math.exp(min(spent.epsilon, LARGE_EPSILON)), 3, up=True)
    conditional = "would be" if facts.insecure else "is"
    seen = (
        "of the model that was chosen and its training, but not of the fits that it was chosen from,"
        if any(release.selected is not None for release in plan.releases)
        else "of the training, all intermediate models included,"
    )
    used, whose = "", f"anyone whose {plan.unit} it is that it was used"
    if plan.images_per_unit is not None:
        used = f", on at most {words.plural(plan.images_per_unit, 'image')} of each"
        whose = f"a {plan.unit} that its images were used"
    text = (
        f"This model was trained on {words.plural(plan.n, 'private ' + plan.unit)} ({printable(plan.name)}){used}. Training "
        f"{conditional} differentially private with ε = {words.epsilon(spent.epsilon)} and δ = "
        f"{words.power(spent.delta)} (promised: at most ε = {words.number(plan.epsilon)}). "
        f"Take two training sets that are the same except that {differ}. Whatever anyone may see "
        f"{seen} is at most e^ε = {factor} times as likely with one as with the "
        f"other, apart from an added probability of at most δ. The smaller both are, the less it matters to {whose}."
    )
    if facts.audit is not None and facts.audit.unpaid:
        text += (
            f" One part of this report is outside of the promise: what {_attacks(facts.audit.unpaid)} measured on the "
            f"private {plan.unit}s, in “{AUDITS}”, is exact, and nothing was paid for it. Do not pass this report on."
        )
    title = (
        "What would be promised if the noise were secret" if facts.insecure else "What is promised"
    )
    return Paragraph(title, text)


def _nothing_promised(facts: RunFacts) -> Paragraph:
    plan = facts.plan
    return Paragraph(
        "What is promised",
        f"Nothing. This model was trained on {words.plural(plan.n, plan.unit)} ({printable(plan.name)}) as if they were "
        f"public: ε is infinite at every δ. Whoever has the model may find out whether a given {plan.unit} was used and what it "
        "shows. Use it for comparison and for finding mistakes, on data that may be seen by all.",
    )


def _unprotected(facts: RunFacts) -> Paragraph:
    plan = facts.plan
    summed = "What each {0} adds to a sum was taken as it is, without a clip, and no noise was added to the sums."
    if plan.mechanism != "no":
        summed = (
            "What each {0} adds to a sum was bounded, and noise was added to the sums, but less of it than a promise asks "
            "for at so small a batch."
        )
    return Paragraph(
        "How it was computed",
        f"{_sampling(facts)} {summed.format(plan.unit)}",
        tuple(describe_release(release) for release in plan.releases),
    )


def _attacks(names: tuple[str, ...]) -> str:
    return f"the attack{'s' if len(names) > 1 else ''} {', '.join(map(printable, names))}"


def _attacker(facts: RunFacts) -> Paragraph:
    unit, title = facts.plan.unit, "What an attacker can find out"
    asked = (
        f"which of two given {unit}s was used"
        if facts.plan.relation == "replace-one"
        else f"whether one given {unit} was used"
    )
    if facts.insecure:
        return Paragraph(
            title,
            "Everything that the released values hold: the noise can be computed and subtracted, "
            "so no bound holds.",
        )
    items = tuple(
        f"An attacker who wrongly accuses {words.percent(bound.false_positive_rate)} of the {unit}s that were not used "
        f"detects at most {words.risk(bound.true_positive_rate)} of those that were."
        for bound in attack_bounds(facts)
    )
    text = (
        f"The attacker of this bound knows every other training {unit}, the program, its settings and every value "
        f"released, and asks only {asked}. The bound follows from {_source(facts)} and holds for "
        f"every attack, also for those not yet invented; known attacks usually find less."
    )
    if attack_bounds(facts)[-1].true_positive_rate > 0.5:
        text += (
            " At an ε this large the bound alone rules out little; it still limits what each further use of the "
            "data adds."
        )
    return Paragraph(title, text, items)


def _source(facts: RunFacts) -> str:
    if facts.risks is None or not facts.risks.recognized:
        return "(ε, δ)"
    if facts.risks.mu is None:
        return "all releases together"
    return f"all releases together, which are µ-Gaussian DP with µ = {words.number(facts.risks.mu, up=True)},"


def _sampling(facts: RunFacts) -> str:
    plan, sampler = facts.plan, facts.plan.sampler
    if sampler is None:
        return f"A release takes all {words.count(plan.n)} {plan.unit}s, unless a sampling rate is stated for it below."
    told = sampler.sentence.format(
        unit=plan.unit,
        n=words.count(plan.n),
        size=words.count(sampler.expected_batch_size),
        rate=words.number(sampler.q),
        **{name: _told(getattr(sampler, name)) for name in sampler.own},
    )
    if not sampler.secret:
        return f"{told}."
    if facts.insecure:
        return f"{told}, drawn from the same fixed seed."
    return f"{told}, and who took part stays secret."


def _told(value: Any) -> str:
    """A sampler's own value."""
    return words.count(value) if type(value) is int else printable(str(value))


def describe_release(release: Release) -> str:
    sampled = "" if release.rate is None else f", sampling rate {words.number(release.rate)}"
    what = (
        release.what[:1].upper()
        + release.what[1:]
        + ("" if release.what.endswith((".", "!", "?")) else ".")
    )
    return (
        f"{release.name}: {words.plural(release.count, 'release')}, noise multiplier "
        f"{words.number(release.noise_multiplier)}{sampled}. {what}"
    )


def _method(facts: RunFacts) -> Paragraph:
    plan, spent = facts.plan, facts.spent
    generator = generators.find(plan.noise_rng).name
    origin = (
        "drawn from a fixed seed that anyone can know"
        if facts.insecure
        else f"drawn by {generator} with a key from the operating system’s entropy, which is destroyed when training is "
        "complete,"
    )
    once, averaged = "", ""
    if plan.images_per_unit is not None:
        once, averaged = f", once for all images of a {plan.unit}", ", averaged over their images"
    text = (
        f"{_sampling(facts)} What one {plan.unit} can add to a sum is bounded{_clipping(facts, once)}, the contributions are summed, and {plan.mechanism} noise {origin} is added "
        f"before anything else may use the sum. {words.plural(spent.releases, 'noisy value').capitalize()} "
        f"{'has' if spent.releases == 1 else 'have'} been released in this way, each written to the ledger before it "
        f"was made. What they cost together was computed by {plan.accountant}, for training sets that differ by "
        f"{words.neighbors(plan.relation, plan.whole_unit)[1]}."
    )
    if plan.features is not None:
        text += f" The {plan.unit}s entered as {words.count(plan.features)} features each{averaged}"
        text += (
            ", as they were given."
            if plan.model == "rows"
            else (", from a map that was not learned from them; computing it costs no privacy.")
        )
    title = "How it was computed" if facts.insecure else "How it was kept"
    return Paragraph(title, text, tuple(describe_release(release) for release in plan.releases))


def _clipping(facts: RunFacts, once: str) -> str:
    norm = facts.plan.clip_norm
    return "" if norm is None else f" (a gradient is clipped to norm {words.number(norm)}{once})"


def _not_covered(facts: RunFacts) -> Paragraph:
    plan, spent = facts.plan, facts.spent
    unit, (pair_epsilon, pair_delta) = plan.unit, group_guarantee(spent.epsilon, spent.delta, 2)
    shown, same = (
        (unit, "of one person")
        if plan.images_per_unit is None
        else ("image", "that are really one")
    )
    measured = (
        (
            f"Test and validation {shown}s. Accuracy, {facts.plan.task.tables}, the learning curve and any {shown} shown come "
            f"from them, without noise."
        )
        if plan.classes
        else "What an evaluation by the author of the method used. Its numbers come from there, without noise."
    )
    items = (
        f"{measured} The guarantee covers the {words.count(plan.n)} training {unit}s only.",
        "Earlier runs on the same data. Settings chosen by looking at such runs carry their information; every run "
        "spends its own ε and δ, and these add up.",
        f"Several {unit}s {same}. For k of them ε grows to about kε, and δ faster: two {unit}s have "
        f"ε = {words.epsilon(pair_epsilon)}, δ = {words.power(pair_delta)}.",
        "What is true of people in general. If the model shows that an illness has visible signs, it does so "
        "whether or not a given person took part.",
        "Side channels: running time, memory, file sizes, and anyone who can read this computer.",
        *(
            [
                f"Audits. audit.json, beside this report, holds what {_attacks(facts.kept_back)} measured on the private {unit}s, "
                "exactly and unpaid. It is for their owner alone, and left out here."
            ]
            if facts.kept_back
            else []
        ),
        *noise_limits.limits(plan),
        *plan.not_covered,
    )
    return Paragraph(
        "What is not covered",
        "A guarantee is only as good as its borders. Not protected are:",
        items,
    )


def _public(facts: RunFacts) -> Paragraph:
    shape = facts.plan.shape
    of_images: tuple[str, ...] = ()
    if shape:
        of_images = (
            f"the {facts.plan.task.one} names ({len(facts.plan.classes)})",
            f"the number of features ({shape[-1]:,})"
            if facts.plan.model == "rows"
            else f"the image size ({' × '.join(map(str, shape))})",
        )
    defaults = (
        f"the number of training {facts.plan.unit}s ({words.count(facts.plan.n)})",
        *of_images,
        "the settings and the program",
    )
    covered = {"n", "class names", "image size", "image shape"}
    more = tuple(printable(fact) for fact in facts.plan.public_facts if fact.lower() not in covered)
    return Paragraph(
        "What counts as public",
        "These were used as they are, without noise, and may be known to all: "
        + "; ".join(defaults + more)
        + ".",
    )


def privacy_statement(facts: RunFacts) -> list[Paragraph]:
    """The statement. Where something is wrong with the run, it says so first."""
    alarm = [Paragraph("Read this first", " ".join(warnings(facts)))] if warnings(facts) else []
    if facts.not_private:
        return [*alarm, _nothing_promised(facts), _unprotected(facts), _public(facts)]
    return [
        *alarm,
        _promise(facts),
        _attacker(facts),
        _method(facts),
        _not_covered(facts),
        _public(facts),
    ]


def as_text(paragraphs: list[Paragraph]) -> str:
    """For a terminal or a text file."""
    lines = (
        [each.title.upper(), each.text, *(f"  * {item}" for item in each.items)]
        for each in paragraphs
    )
    return "\n\n".join("\n".join(block) for block in lines) + "\n"
