"""Encoded bytes -> pixels, through Pillow (imported only when something is decoded), and pydicom for DICOM
(`dicom.py`).

What a file may hold beyond plain 8-bit RGB: a rotation in its EXIF data, a palette, transparency,
16 bits per sample, CMYK. All become uint8, upright, opaque (over white), with 3 channels or 1.

A JPEG that will be made smaller is decoded at 1/2, 1/4 or 1/8 of its size at once, from fewer of its
coefficients, as long as its shorter side stays what was asked for or more: 0.6 of the time from 800 x 600 to
224, and nothing saved where more than half is kept. simplejpeg, which also knows eighths, needs 0.77 of Pillow's
time from 500 x 375 to 224, with pixels further off, and nearly the same elsewhere (benchmarks/RESULTS.md): not worth
a dependency.
"""

import importlib.metadata
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Shaped, UInt8

from sfumato.core.checks import MAX_PIXELS, pixel_count
from sfumato.core.errors import ArgumentError, DataError
from sfumato.data.dicom import SUFFIXES as DICOM
from sfumato.data.dicom import dicom_size, is_dicom, read_dicom
from sfumato.data.records import read_file
from sfumato.data.split import ReadOptions

if TYPE_CHECKING:
    from PIL.Image import Image

# Only these decoders ever see a user's file: some of Pillow's others start external programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", *DICOM)
_LIMIT = threading.Lock()  # while Pillow's own limit, a global variable, is put aside
RULES = 2  # counts up when other pixels are made of the same bytes: 2 scales JPEGs while decoding
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def decoder_name() -> str:
    """What the pixels of a run depend on beside the bytes."""
    from PIL import features

    codecs = {
        "libjpeg-turbo": "libjpeg_turbo",
        "zlib": "zlib",
        "WebP": "webp",
        "libtiff": "libtiff",
    }
    told = [f"{name} {features.version(own)}" for name, own in codecs.items()]
    return ", ".join(
        [f"rules {RULES} (since Sfumato 0.2), Pillow {importlib.metadata.version('Pillow')}", *told]
    )


def open_image(content: bytes, most: int = MAX_PIXELS) -> "Image":
    """Read the header only. Raises DataError where it announces more than `most` pixels, in place of
    Pillow, whose limit is a global variable and whose words are of attacks.
    """
    from PIL import Image

    if is_dicom(content):
        return read_dicom(content, most)
    Image.init()  # else Pillow knows only the decoders of the formats it met before
    with _LIMIT:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            known = [name for name in FORMATS if name in Image.OPEN]
            image = Image.open(io.BytesIO(content), formats=known)
        finally:
            Image.MAX_IMAGE_PIXELS = theirs
    try:
        pixel_count(image.height, image.width, most)
        if image.format == "TIFF":
            _check_tiff(image)
    except Exception:
        image.close()
        raise
    return image


def _check_tiff(image: "Image") -> None:
    """Raises DataError for what would be read as something else than it is."""
    if getattr(image, "n_frames", 1) > 1:
        raise DataError("has several pages; store each as a file of its own")
    if image.mode == "F":
        raise DataError("holds floats, whose range is not told; store it in 8 or 16 bits")


def upright_size(content: bytes, most: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) after EXIF orientation, from the header. Raises whatever Pillow raises."""
    if is_dicom(content):
        return dicom_size(content, most)
    with open_image(content, most) as image:
        width, height = image.size
        if image.format == "TIFF":  # Pillow has turned it
            return height, width
        # Pillow decodes a PNG in search of EXIF data that its header does not announce.
        exif = image.getexif() if image.format != "PNG" or "exif" in image.info else {}
        return (width, height) if exif.get(_ORIENTATION) in _TURNED else (height, width)


def decode(content: bytes, options: ReadOptions) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of one encoded image. Raises whatever Pillow raises for unreadable ones."""
    with open_image(content, options.max_pixels) as image:
        if options.resize:
            image.draft(None, (options.resize, options.resize))  # nothing but for a larger JPEG
        return of_image(image, options)


def of_image(image: "Image", options: ReadOptions) -> UInt8[np.ndarray, "h w c"]:
    """The pixels of an image of Pillow's, which stays as it is. Raises whatever Pillow raises."""
    from PIL import ImageOps

    image.load()
    turned = image.getexif().get(_ORIENTATION, 1) != 1
    upright = ImageOps.exif_transpose(image) if turned else image  # which would copy it
    return _to_array(_fit(_plain(upright, options.gray), options.resize))


def decode_file(path: Path, options: ReadOptions) -> UInt8[np.ndarray, "h w c"]:
    """As `decode`, of a file. Raises OSError where it cannot be read."""
    return decode(read_file(path), options)


def why_not(error: Exception) -> str:
    """Why an image cannot be decoded: on hostile bytes a decoder may raise almost anything."""
    first_line = (str(error).splitlines() or [""])[0] or type(error).__name__
    return "not an image of a known format" if "cannot identify" in first_line else first_line


def refit(
    images: Shaped[np.ndarray, "b h w c"], options: ReadOptions
) -> Shaped[np.ndarray, "b h2 w2 c2"]:
    """The same treatment (gray, resize) for images that are arrays already. Raises ArgumentError
    for floats."""
    from PIL import Image

    if images.dtype != np.uint8:
        argument, value = ("resize", options.resize) if options.resize else ("gray", options.gray)
        raise ArgumentError(
            argument, value, "this needs uint8 pixels, and these are floats; convert them to uint8"
        )
    shape = fitted_shape(images.shape[1:], options)
    fitted = np.empty((len(images), *shape), np.uint8)
    for k, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        fitted[k] = _to_array(_fit(image.convert("L") if shape[2] == 1 else image, options.resize))
    return fitted


def fitted_shape(shape: Sequence[int], options: ReadOptions) -> tuple[int, int, int]:
    """(h, w, c) of an image of `shape` after `options`."""
    h, w, c = (int(size) for size in shape)
    return options.resize or h, options.resize or w, 1 if options.gray else c


def _plain(image: "Image", gray: bool) -> "Image":
    """8 bits per sample, opaque, mode RGB or L."""
    from PIL import Image

    if image.mode in ("I", "F") or image.mode.startswith("I;16"):  # 16-bit gray; 65535 = 257 * 255
        samples = np.asarray(image, np.float64) / 257
        image = Image.fromarray(np.rint(samples).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    mode = "L" if gray else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _fit(image: "Image", side: int | None) -> "Image":
    """Shorter side -> `side` pixels, then the center square. Pillow widens the bicubic kernel when
    it shrinks."""
    from PIL import Image

    if side is None:
        return image
    shorter = min(image.size)
    width, height = (max(side, round(length * side / shorter)) for length in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _to_array(image: "Image") -> UInt8[np.ndarray, "h w c"]:
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
