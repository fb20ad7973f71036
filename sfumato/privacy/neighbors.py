"""Which data sets are neighbors, and how far their sums are apart. C is the most that one example
contributes to a sum.

add-or-remove-one   one data set has exactly one example more; the sums differ by at most C
zero-out            one example contributes nothing; n is public. The sums differ by at most C
replace-one         one example is another; n is public. The sums differ by up to 2 C
"""

from typing import Any, Literal

Relation = Literal["add-or-remove-one", "zero-out", "replace-one"]
ADD_OR_REMOVE: Relation = "add-or-remove-one"
ZERO_OUT: Relation = "zero-out"
REPLACE_ONE: Relation = "replace-one"
RELATIONS: tuple[Relation, ...] = (ADD_OR_REMOVE, ZERO_OUT, REPLACE_ONE)


def distance(relation: Relation) -> float:
    """How far the sums of neighbors are apart, in units of C."""
    return 2.0 if relation == REPLACE_ONE else 1.0


def of_library(relation: Relation) -> Any:
    """The same relation in the words of `dp-accounting`."""
    from dp_accounting.privacy_accountant import NeighboringRelation as Neighbors

    return {
        ADD_OR_REMOVE: Neighbors.ADD_OR_REMOVE_ONE,
        ZERO_OUT: Neighbors.REPLACE_SPECIAL,
        REPLACE_ONE: Neighbors.REPLACE_ONE,
    }[relation]
