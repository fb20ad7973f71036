"""What an augmentation is: one example's views, made of its own image and its own draws alone.

It has two halves. On the host, `draws` turns secret random words into small whole numbers; in the
program of the loss, `view` makes a view of them. So images travel once, as they are stored, however
many views they have.

Nobody else's image or draws come in, so a view says nothing of the other examples, and a gradient
that was averaged over the views of one example is bounded by one clip.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int32, Num, UInt64

from sfumato.networks.input import Input

Image = Num[Array, "h w c"]
View = Num[Array, "h2 w2 c"]
LOW, HALF = np.uint64(2**32), np.uint64(2**63)


@dataclass(frozen=True)
class Augmentation:
    """Base of all augmentations. shape: of an image as it is stored. out: height and width of a
    view.

    words: for the report. random: words of 64 bits that a view takes. stage: 0 chooses a part of
    the image, 1 changes what is seen, 2 mixes views. least_views: fewer make no sense. kept: see
    `augment.kept`.
    """

    shape: tuple[int, int, int]
    out: tuple[int, int]

    words: ClassVar[str]
    random: ClassVar[int] = 1
    stage: ClassVar[int] = 1
    least_views: ClassVar[int] = 1
    kept: ClassVar[float | None] = None

    @classmethod
    def stream(cls) -> tuple[str, ...]:
        """Under which name the words are drawn. Those that choose a part share one, as there is at
        most one of them."""
        return () if cls.stage == 0 else (f"{cls.__module__}:{cls.__qualname__}",)

    @classmethod
    def for_network(cls, shape: tuple[int, int, int], own: Input) -> "Augmentation":
        """For images of this shape, and a network that prepares them in this way."""
        return cls(shape, shape[:2])

    def draws(self, words: UInt64[np.ndarray, "b v random"]) -> Int32[np.ndarray, "b v k"]:
        """The numbers that say what each view is: a function of its own words, but for `mix`, whose
        views know each other."""
        raise NotImplementedError

    def view(self, image: Image, draws: Int32[Array, " k"]) -> View:
        """One view. image: uint8, or floats that are meant to lie in [0, 1]."""
        raise NotImplementedError

    def views(
        self, images: Num[Array, "u h w c"], draws: Int32[Array, "v k"]
    ) -> Num[Array, "v h2 w2 c"]:
        """All views of one example, from its image (u = 1) or from views of it (u = v)."""
        if len(images) == 1:
            return jax.vmap(self.view, (None, 0))(images[0], draws)
        return jax.vmap(self.view)(images, draws)

    @property
    def colored(self) -> bool:
        """In the mirror, digits and letters are others; photographs are not."""
        return self.shape[2] == 3


def below(words: UInt64[np.ndarray, "..."], count: np.ndarray | int) -> Int32[np.ndarray, "..."]:
    """The lower 32 bits as a number of 0 .. count-1; no value is likelier than another by more than
    count / 2^32."""
    return (words % LOW % np.asarray(count, np.uint64)).astype(np.int32)


def below_too(
    words: UInt64[np.ndarray, "..."], count: np.ndarray | int
) -> Int32[np.ndarray, "..."]:
    """Another number from the next 31 bits."""
    return below(words // LOW % np.uint64(2**31), count)


def mirrored(words: UInt64[np.ndarray, "..."], colored: bool) -> Int32[np.ndarray, "..."]:
    """1 where the last bit says so."""
    return ((words >= HALF) & colored).astype(np.int32)


def along(size: int, flipped: Array) -> Int32[Array, " size"]:
    """0 .. size-1, or backwards."""
    forth = jnp.arange(size)
    return jnp.where(flipped > 0, forth[::-1], forth)


def picked(image: Image, rows: Int32[Array, " h2"], columns: Int32[Array, " w2"]) -> View:
    """The pixels at these rows and columns, all inside of the image."""
    return image.at[rows[:, None], columns[None, :]].get(mode="clip")
