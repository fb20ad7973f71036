"""Public weights: files -> networks."""

from sfumato.weights.load import Weights, load, pretrained
from sfumato.weights.own import save
from sfumato.weights.raw import RawWeights, read

__all__ = ["RawWeights", "Weights", "load", "pretrained", "read", "save"]
