"""In which numbers a network computes while it is trained, by name. Plain facts: nothing here imports
JAX."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal


@dataclass(frozen=True)
class Precision:
    """compute: type of images and activations. products: what is asked of products of float32 on
    accelerators, None for their default. size: bytes of a number of the compute type. words: for
    `--help`.

    Parameters, norms, sums, noise and optimizer are float32 in all of them.
    """

    compute: str
    products: str | None
    size: int
    words: str


PRECISIONS = {
    "float32": Precision("float32", "highest", 4, "float32 throughout"),
    "tf32": Precision("float32", None, 4, "float32, in products what the device reads of it"),
    "bf16": Precision("bfloat16", None, 2, "images and activations in bfloat16"),
}
HELP = " | ".join(f"{name}: {each.words}" for name, each in PRECISIONS.items())


def usual(platform: str) -> str:
    """The default on a platform, as JAX names it."""
    return "float32" if platform == "cpu" else "bf16"


if TYPE_CHECKING:
    PrecisionName = str
else:
    PrecisionName = Literal[tuple(PRECISIONS)]
