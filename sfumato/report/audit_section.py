"""What attacks measured, beside what was claimed: the report's section on audits."""

from typing import Any

from sfumato.audit.result import AuditRecord, AuditResult
from sfumato.report import noise_limits, words
from sfumato.report.facts import MethodPlan, Plan, printable
from sfumato.report.figures import audit_plot

LIMITS = (
    "An audit can only find too little privacy, never prove enough of it. A lower bound far below the claim says that these "
    "attacks found no more, not that no other would. The attacks trained anew with this run’s plan, on the machine where they "
    "were run; the key of this run is destroyed, so its own noise could not be examined. Each bound rests on the assumption in "
    "its row, and says nothing about an error that needs other data, another sampler or another machine to show. The promise "
    "rests on the proof and the ledger, not on this."
)


def section(audit: AuditRecord, plan: Plan | MethodPlan) -> dict[str, Any]:
    """Everything that the template shows."""
    membership = [membership_sentence(each) for each in audit.results if "AUC" in each.details]
    return {
        "broken": any(each.broken for each in audit.results),
        "verdict": verdict(audit),
        "rows": audit.results,
        "plot": audit_plot(audit.results),
        "membership": membership,
        "limits": LIMITS + noise_limits.audited_otherwise(plan),
    }


def verdict(audit: AuditRecord) -> str:
    """One or two sentences: does anything contradict the claim, and how near do the attacks come?"""
    broken = [each for each in audit.results if each.broken]
    if broken:
        worst = max(broken, key=lambda each: each.lower_bound / each.epsilon)
        return (
            f"THE CLAIM DOES NOT HOLD, or this is one of the audits in twenty that err: {_measured(worst)} is claimed. "
            "Repeat the audit. If it fails again, do not publish the model, and report the error."
        )
    best = max(audit.results, key=lambda each: each.lower_bound / each.epsilon)
    if best.lower_bound == 0:
        return "No attack contradicts the claim, and with this many guesses none could show any loss of privacy."
    return (
        f"No attack contradicts the claim. The strongest: {_measured(best)} is claimed, so "
        f"{words.percent(best.lower_bound / best.epsilon, 0)} of it was seen at work."
    )


def _measured(result: AuditResult) -> str:
    return (
        f"the attack {printable(result.attack)} ({printable(result.method)}) measured ε of at least "
        f"{result.lower_bound:.2f} where {words.epsilon(result.epsilon)}"
    )


def membership_sentence(result: AuditResult) -> str:
    """How well members of the training set can be told, beside what the claim allows."""
    found = result.details
    rates = "; ".join(
        f"where {words.percent(rate)} of others are wrongly accused it finds {words.percent(found[f'TPR at FPR {rate:g}'])} of "
        f"them (allowed: {words.percent(found[f'TPR allowed at FPR {rate:g}'])})"
        for rate in (0.001, 0.01)
        if f"TPR at FPR {rate:g}" in found
    )
    return (
        f"Membership inference on this very model, by shadow models, tells training images from test images with an area "
        f"under the ROC curve of {found['AUC']:.3f} (0.5 is a guess); {rates}."
    )
