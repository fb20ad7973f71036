"""What a method may spend, and the public facts that its rule for what the user left open knows."""

from dataclasses import dataclass

from sfumato.core.tasks import SINGLE, Task
from sfumato.privacy.neighbors import Relation


@dataclass(frozen=True)
class Budget:
    """n: training examples. d: features, or parameters of a network. mu: the Gaussian budget of
    (epsilon, delta) under `relation`. kind: what is trained, "features", "cnn", "network" or
    "fine-tuning". task: whether `classes` counts classes or findings.
    """

    kind: str
    n: int
    d: int
    classes: int
    epsilon: float
    delta: float
    mu: float
    relation: Relation
    task: Task = SINGLE
