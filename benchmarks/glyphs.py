"""Letters and signs drawn by fonts: labels that a mirror image would change. Needs matplotlib, whose
DejaVu fonts draw them, and Pillow.
"""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

LETTERS, DIGITS = "abcdefghijklmnopqrstuvwxyz", "0123456789"
_FINE = 4
"""Drawn at so many times the size."""

Drawn = tuple[np.ndarray, np.ndarray, str]
"""Images (n, h, w, c) in [0, 1], labels, the classes."""


def letters(count: int, seed: int = 0) -> Drawn:
    """White on black, 28 x 28 gray, capitals and small letters, turned, slanted and moved."""
    stream = np.random.default_rng(seed)
    labels = stream.integers(len(LETTERS), size=count).astype(np.int32)
    big = stream.random(count) < 0.5
    texts = [LETTERS[y].upper() if up else LETTERS[y] for y, up in zip(labels, big, strict=True)]
    shapes = np.stack([_shape(text, 28, stream) for text in texts])
    noisy = shapes + 0.08 * stream.normal(size=shapes.shape)
    return np.clip(noisy, 0, 1).astype(np.float32), labels, LETTERS


def signs(count: int, seed: int = 1) -> Drawn:
    """A digit of one color on a ground of another, 32 x 32, under uneven light."""
    stream = np.random.default_rng(seed)
    labels = stream.integers(len(DIGITS), size=count).astype(np.int32)
    line = np.linspace(-1, 1, 32)
    images = np.empty((count, 32, 32, 3), np.float32)
    for at, y in enumerate(labels):
        front, ground = stream.random((2, 3))
        while abs(front.mean() - ground.mean()) < 0.15:
            front, ground = stream.random((2, 3))
        down, across = 0.15 * stream.normal(size=(2, 3))
        light = down * line[:, None, None] + across * line[None, :, None]
        shape = _shape(DIGITS[y], 32, stream)
        images[at] = ground + (front - ground) * shape + light
    return (
        np.clip(images + 0.08 * stream.normal(size=images.shape), 0, 1, dtype=np.float32),
        labels,
        DIGITS,
    )


def _shape(text: str, side: int, stream: np.random.Generator) -> np.ndarray:
    fonts = sorted((Path(matplotlib.get_data_path()) / "fonts/ttf").glob("DejaVuS*.ttf"))
    fonts = [font for font in fonts if "Display" not in font.name]
    full = side * _FINE
    size = int(stream.integers(int(0.54 * full), int(0.82 * full)))
    font = ImageFont.truetype(str(fonts[stream.integers(len(fonts))]), size)
    place = full / 2 + stream.integers(-full // 8, full // 8 + 1, size=2)
    image = Image.new("L", (full, full), 0)
    ImageDraw.Draw(image).text(tuple(place), text, font=font, fill=255, anchor="mm")
    image = image.rotate(12 * stream.normal(), Image.Resampling.BILINEAR)
    slant = 0.2 * stream.normal()
    image = image.transform(
        image.size,
        Image.Transform.AFFINE,
        (1, slant, -slant * full / 2, 0, 1, 0),
        Image.Resampling.BILINEAR,
    ).resize((side, side), Image.Resampling.BOX)
    return np.asarray(image, np.float32)[..., None] / 255
