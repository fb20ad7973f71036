"""A run directory -> the privacy statement in words, `report.html`, `model_card.md`. Nothing here
imports JAX."""

import sys
from pathlib import Path
from types import ModuleType

from sfumato.report.card import model_card
from sfumato.report.facts import RunFacts
from sfumato.report.html import write_report
from sfumato.report.statement import Paragraph, as_text, privacy_statement

__all__ = ["Paragraph", "RunFacts", "as_text", "model_card", "privacy_statement", "write_report"]


class _Room(ModuleType):
    """`sf.report(run_dir)` writes the report: Python gives a package's parts their own names, so the
    room itself is what can be called."""

    def __call__(
        self, run_dir: Path | str, with_audit: bool = False, trust: str | None = None
    ) -> Path:
        return write_report(Path(run_dir), with_audit, trust)


sys.modules[__name__].__class__ = _Room
