"""Per-example loss -> `BoundedSum`, a clipped sum that knows its sensitivity."""

from sfumato.clip.bounded_sum import BoundedSum, Sensitivity
from sfumato.clip.engine import ClippedGrad, clipped_grad

__all__ = ["BoundedSum", "ClippedGrad", "Sensitivity", "clipped_grad"]
