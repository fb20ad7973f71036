"""The means of the features of drawn pictures, which are subtracted from the features of all images.

    python benchmarks/encoder/means.py --out sfumato/features/means.safetensors

Of dead leaves from a public seed, and of their mirror images: no image of any data set. The same numbers on every
machine up to rounding (`tests/test_centered.py` compares some).
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from sfumato.features import by_name
from sfumato.features.dead_leaves import dead_leaves

PARTS = ("cells", "patches", "scattering", "handed")
COUNT, SIDE, SEED = 1_000, 32, 7


def mean(name: str, colors: int, count: int = COUNT) -> np.ndarray:
    """Of the rows of so many pictures and of their mirror images."""
    each = by_name.features(name, (SIDE, SIDE, colors))
    pictures = dead_leaves(count, SIDE, colors, SEED)
    both = np.concatenate([pictures, pictures[:, :, ::-1]])
    rows = jax.jit(lambda images: jax.lax.map(each, images, batch_size=8))(jnp.asarray(both))
    return np.asarray(rows, np.float64).mean(0).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    save_file({f"{name}/{colors}": mean(name, colors) for name in PARTS for colors in (1, 3)}, out)


if __name__ == "__main__":
    main()
