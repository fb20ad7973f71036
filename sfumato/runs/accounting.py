"""`sfumato calibrate` and `sfumato account`, in words."""

from pathlib import Path

from sfumato.core.checks import positive, privacy_target, whole
from sfumato.core.errors import ArgumentError
from sfumato.privacy import accountants, calibration
from sfumato.privacy.events import Event, GaussianEvent, SelectedEvent, Tally
from sfumato.privacy.ledger import Ledger
from sfumato.sampling import Poisson


def calibrate(epsilon: float, delta: float | None, n: int, batch: int, steps: int) -> str:
    """The least noise multiplier, with the numbers it was found for."""
    epsilon, delta = privacy_target(epsilon, delta, whole("n", n))
    sampler = _sampler(n, batch, steps)
    sigma = calibration.noise_multiplier(lambda s: _tally(sampler, s), epsilon, delta)
    spent = accountants.epsilon(_tally(sampler, sigma), delta)
    return (f"noise multiplier {sigma:.6g}   (epsilon {spent:.6g} <= {epsilon:g} at delta {delta:g}; n={n}, "
            f"q={sampler.rate:.6g}, {steps} steps; {accountants.describe(_tally(sampler, sigma))})")


def of_numbers(sigma: float | None, delta: float | None, n: int | None, batch: int | None, steps: int | None) -> str:
    """epsilon of DP-SGD with these numbers."""
    given = {"noise_multiplier": sigma, "n": n, "batch": batch, "steps": steps}
    if sigma is None or n is None or batch is None or steps is None:
        missing = [name for name, value in given.items() if value is None]
        raise ArgumentError(missing[0], None, "is missing: give a ledger, or all of --noise-multiplier, --n, --batch, --steps")
    positive("noise_multiplier", sigma)
    _, delta = privacy_target(1.0, delta, whole("n", n))
    tally = _tally(_sampler(n, batch, steps), sigma)
    return f"epsilon {accountants.epsilon(tally, delta):.6g} at delta {delta:g}   ({accountants.describe(tally)})"


def of_ledger(path: Path, delta: float | None) -> str:
    """epsilon recomputed from the ledger alone, with what it is composed of."""
    ledger = Ledger.read(path)
    delta = ledger.delta if delta is None else positive("delta", delta)
    spent = accountants.epsilon(ledger.tally, delta)
    lines = [f"epsilon {spent:.6g} at delta {delta:g}   (budget {ledger.epsilon_max:g} at delta {ledger.delta:g}; "
             f"{ledger.relation}, unit: {ledger.unit}; {accountants.describe(ledger.tally)})"]
    lines += [f"  {count:>6} x {_in_words(event)}" for event, count in sorted(ledger.tally.items(), key=str)]
    return "\n".join(lines)


def _in_words(event: Event) -> str:
    if isinstance(event, GaussianEvent):
        return f"Gaussian, noise multiplier {event.noise_multiplier:.6g}, all examples"
    if isinstance(event, SelectedEvent):
        return f"best of about {event.mean:g} fits, each Gaussian with noise multiplier {event.event.noise_multiplier:.6g}"
    return f"Gaussian, noise multiplier {event.event.noise_multiplier:.6g}, Poisson sample with rate {event.rate:.6g}"


def _sampler(n: int, batch: int, steps: int) -> Poisson:
    if whole("batch", batch) > n:
        raise ArgumentError("batch", batch, f"give at most n={n}")
    return Poisson(batch / n, whole("steps", steps), n)


def _tally(sampler: Poisson, sigma: float) -> Tally:
    return {sampler.event(GaussianEvent(sigma)): sampler.steps}
