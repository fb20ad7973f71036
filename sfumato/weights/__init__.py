"""Public weights: files -> networks."""

from sfumato.weights.files import RawWeights, read
from sfumato.weights.load import Weights, load, pretrained
from sfumato.weights.own import save

__all__ = ["RawWeights", "Weights", "load", "pretrained", "read", "save"]
