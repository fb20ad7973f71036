"""Per-example loss -> `BoundedSum`, a clipped sum that knows its sensitivity. The way through this
room: docs/engine.md."""

from sfumato.clip.bounded_sum import BoundedSum, Sensitivity
from sfumato.clip.engine import ClippedGrad, clipped_grad
from sfumato.clip.explain import explain
from sfumato.clip.isolation import check_isolation

__all__ = ["BoundedSum", "ClippedGrad", "Sensitivity", "check_isolation", "clipped_grad", "explain"]
