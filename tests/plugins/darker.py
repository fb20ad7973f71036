"""An augmentation of one's own."""

from typing import ClassVar

import numpy as np

from sfumato.augment.base import Augmentation, below
from sfumato.networks.input import pixels


class Darker(Augmentation):
    """Each view at half of its brightness to all of it."""

    words: ClassVar[str] = "darker by up to a half"

    def draws(self, words):
        return 256 + below(words, 257).astype(np.int32)

    def view(self, image, draws):
        return pixels(image) * (draws[0] / 512)
