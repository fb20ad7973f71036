"""Responses of a small network that has seen no photograph, only pictures that nobody took.

It was trained once by contrast (SimCLR, Chen et al. 2020) on procedurally drawn pictures from a
public seed, by `benchmarks/encoder/train.py`; its kernels, BatchNorm folded in, lie beside this
file. They cost no privacy and no download.
"""

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from sfumato.features.feature_map import (
    FeatureMap,
    Group,
    at_working_size,
    check_colors,
    low_frequencies,
    spectrum,
    unit,
)
from sfumato.features.patches import windows

WEIGHTS = Path(__file__).with_name("encoder.safetensors")
LAYERS = (
    ("stem", 3, 32, 1),
    ("down1", 32, 64, 2),
    ("block1/a", 64, 64, 1),
    ("block1/b", 64, 64, 1),
    ("down2", 64, 128, 2),
    ("block2/a", 128, 128, 1),
    ("block2/b", 128, 128, 1),
    ("down3", 128, 256, 2),
    ("block3/a", 256, 256, 1),
    ("block3/b", 256, 256, 1),
)
"""Name, channels that come in and go out, stride. Layers a and b are a block: what came into a is
added to what b makes."""
STAGES = ("block1/b", "block2/b", "block3/b")
CHANNELS = sum(outputs for name, _, outputs, _ in LAYERS if name in STAGES)
CELLS = 2


def scaled(image: Float[Array, "*n h w 3"]) -> Float[Array, "*n h w 3"]:
    """Pixels in [0, 1] as the first layer wants them."""
    return (image - 0.5) * 4


class Encoder(FeatureMap):
    """The maps of the last three stages (64, 128 and 256 channels), averaged on 2 x 2 overlapping
    cells and over the mirror image, so that a row is the same for an image and its mirror image.
    Square roots, each stage scaled to norm 1; of each channel the mean and the vertical difference
    of the cells: 2 frequencies x 448 channels.

    The horizontal difference is left out: what the mirror leaves of it is nearly zero.
    """

    kernels: dict[str, Float[Array, "p q i o"]]
    biases: dict[str, Float[Array, " o"]]
    groups: tuple[Group, ...] = eqx.field(static=True)

    def __init__(self, colors: int):
        from safetensors.numpy import load_file

        check_colors(colors)
        stored = {
            name: jnp.asarray(array, jnp.float32) for name, array in load_file(WEIGHTS).items()
        }
        self.kernels = {name: stored[f"{name}/kernel"] for name, *_ in LAYERS}
        self.biases = {name: stored[f"{name}/bias"] for name, *_ in LAYERS}
        self.groups = (Group(2, CHANNELS, 1.0),)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        rows = jnp.concatenate([unit(_roots(maps)) for maps in self.both(image)], axis=-1)
        return unit(jnp.stack([rows[0] + rows[1], rows[0] - rows[1]])).ravel()

    def both(self, image: Float[Array, "h w c"]) -> list[Float[Array, "2 a b k"]]:
        """The stages' maps of the image and of its mirror image."""
        image = at_working_size(image)
        image = scaled(jnp.broadcast_to(image, (*image.shape[:2], 3)))
        return self.stages(jnp.stack([image, image[:, ::-1]]))

    def stages(self, images: Float[Array, "n h w 3"]) -> list[Float[Array, "n a b k"]]:
        maps, skip, found = images, images, []
        for name, _, _, stride in LAYERS:
            skip = maps if name.endswith("/a") else skip
            maps = (
                lax.conv_general_dilated(
                    maps,
                    self.kernels[name],
                    (stride, stride),
                    ((1, 1), (1, 1)),
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                )
                + self.biases[name]
            )
            maps = jax.nn.relu(maps + skip if name.endswith("/b") else maps)
            found += [maps] if name in STAGES else []
        return found


def _roots(maps: Float[Array, "2 a b k"]) -> Float[Array, "2 k"]:
    """An image's and its mirror image's maps -> square roots of the mean responses of the upper and
    the lower cells, averaged over both images and over left and right.
    """
    down, across = windows(maps.shape[1], CELLS), windows(maps.shape[2], CELLS)
    cells = jnp.sqrt(jnp.einsum("ua,vb,nabk->nuvk", down, across, maps))
    return cells.mean((0, 2))


class EncoderCells(Encoder):
    """The same three stages on finer cells: square roots of the means of 3 x 3 overlapping cells,
    averaged over the image and its mirror image, each stage scaled to norm 1; of each channel the
    DCT frequencies (0, 0), (1, 0), (0, 2) and (2, 0) of the cells: 4 frequencies x 448 channels.

    Odd horizontal frequencies are left out: as the network was trained on mirrored pictures, too,
    the mirror leaves nearly nothing of them. Those kept do not change with the mirror image.
    """

    def __init__(self, colors: int):
        super().__init__(colors)
        self.groups = (Group(len(_EVEN), CHANNELS, 1.0),)

    def __call__(self, image: Float[Array, "h w c"]) -> Float[Array, " d"]:
        stages = [unit(_even_spectrum(maps)) for maps in self.both(image)]
        return unit(jnp.concatenate(stages, axis=-1)).ravel()


_EVEN = tuple(at for at, (_, across) in enumerate(low_frequencies(2)) if across % 2 == 0)


def _even_spectrum(maps: Float[Array, "2 a b k"]) -> Float[Array, "4 k"]:
    down, across = windows(maps.shape[1]), windows(maps.shape[2])
    cells = jnp.sqrt(jnp.einsum("ua,vb,nabk->nuvk", down, across, maps))
    return spectrum(cells.mean(0))[jnp.asarray(_EVEN)]
