"""What is promised, to whom: the budget of a method."""

from dataclasses import dataclass

from sfumato.core.checks import choice, positive, positive_or_infinite
from sfumato.core.errors import ArgumentError
from sfumato.privacy.neighbors import ADD_OR_REMOVE, RELATIONS, Relation


@dataclass(frozen=True)
class Guarantee:
    """(epsilon, delta)-differential privacy under a relation of neighborhood. unit: a noun for what
    is added or removed, for the report. An infinite epsilon promises nothing (`not_private.py`). Raises
    ArgumentError."""

    epsilon: float
    delta: float
    relation: Relation = ADD_OR_REMOVE
    unit: str = "example"

    def __post_init__(self) -> None:
        positive_or_infinite("epsilon", self.epsilon)
        if positive("delta", self.delta) >= 1:
            raise ArgumentError("delta", self.delta, "give a number below 1")
        choice("relation", self.relation, RELATIONS)
        if not self.unit:
            raise ArgumentError("unit", self.unit, "give a noun, such as image")


def whole_unit(noun: str, most: int | None) -> str:
    """("image", None) -> "image"; ("patient", 8) -> "patient with up to 8 images"."""
    return noun if most is None else f"{noun} with up to {most:,} image{'s' if most > 1 else ''}"
