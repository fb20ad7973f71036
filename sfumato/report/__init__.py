"""A run directory -> the privacy statement in words, `report.html`, `model_card.md`. Nothing here
imports JAX."""

from sfumato.report.card import model_card
from sfumato.report.facts import RunFacts
from sfumato.report.html import write_report
from sfumato.report.statement import Paragraph, as_text, privacy_statement

__all__ = ["Paragraph", "RunFacts", "as_text", "model_card", "privacy_statement", "write_report"]
