"""What the noise of a run was, what it defends against and what it does not, by the names of
`--noise` and `--noise-rng`.

On the lowest bits of floating-point noise: Mironov 2012; Jin, McMurtry, Rubinstein & Ohrimenko 2022
(arXiv 2112.05307), who also read discrete noise from the time that it took.
"""

from dataclasses import dataclass

from sfumato.plan.method_plan import MethodPlan
from sfumato.plan.plan import Plan


@dataclass(frozen=True)
class Generator:
    """limits: for the list of what is not covered."""

    name: str
    limits: tuple[str, ...]


_ROUNDING = (
    "Rounding before the noise. What one {unit} may add is bounded with an allowance for rounding that is tested, not "
    "proven; and one {unit} more in a sum may change how the others’ contributions are rounded, by about a millionth of one."
)
LIMITS = {
    "gaussian": (
        "Floating point. The noise approximates a Gaussian law with machine numbers; attacks on their lowest bits are known "
        "and were not defended against in this run (--noise lattice does).",
        _ROUNDING,
    ),
    "lattice": (
        "Floating point, but for the lowest bits of the noise: every released number is a whole multiple of a public step, "
        "whatever the sum was, so that the known attacks on those bits find nothing.",
        _ROUNDING,
        "The time that the noise took. Its sampler tries again until a draw fits, and large draws take longer; anyone who "
        "could time single releases would learn something about their noise.",
    ),
}
GENERATORS = {
    "philox": Generator(
        "Philox4x64-10",
        (
            "The generator of the noise, Philox4x64-10 with secret keys. It passes every known statistical test, but it is not "
            "a cipher; that nobody can predict it is an assumption (--noise-rng chacha uses a cipher).",
        ),
    ),
    "chacha": Generator(
        "ChaCha20",
        (
            "The generator of the noise, ChaCha20 with secret keys. That nobody can predict it without them is an assumption, on "
            "which much of today’s encryption rests.",
        ),
    ),
}


def name(plan: Plan | MethodPlan) -> str:
    where = ", on a lattice" if plan.noise == "lattice" else ""
    return f"{plan.mechanism}{where}, by {GENERATORS[plan.noise_rng].name}"


def limits(plan: Plan | MethodPlan) -> tuple[str, ...]:
    return tuple(
        each.format(unit=plan.unit)
        for each in LIMITS[plan.noise] + GENERATORS[plan.noise_rng].limits
    )


def audited_otherwise(plan: Plan | MethodPlan) -> str:
    """Audits train anew with the default noise; the empty text where that is this run's."""
    if (plan.noise, plan.noise_rng) == ("gaussian", "philox"):
        return ""
    return (
        f" They drew their noise from machine numbers by {GENERATORS['philox'].name}, by the same law to what can be "
        f"measured; this run’s own ({name(plan)}) was not examined."
    )
