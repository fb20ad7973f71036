"""A DICOM file -> 8-bit pixels, through pydicom (the extra `sfumato[medical]`).

    values       the stored ones through RescaleSlope and RescaleIntercept, or the modality's table
    brightness   the file's first window (DICOM PS3.3 C.11.2.1.2), or its table of values of interest;
                 without either, 8 stored bits stay what they are, and deeper images are stretched
                 from their own smallest value to their own largest one
    MONOCHROME1  is inverted, so that dark is dark in all images
    colors       RGB, YBR and palettes become RGB
    spacing      of pixels is ignored

A file of one frame only. Compressed pixels are read where pydicom or a plug-in of it can. A file
that is deflated as a whole is refused: nothing bounds beforehand what it unpacks to.
"""

import io
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped, UInt8

from sfumato.core.checks import MAX_PIXELS, pixel_count
from sfumato.core.errors import DataError, data_error, said

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".dcm", ".dicom")
_DEFLATED = {
    b"1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    b"1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}


def is_dicom(content: bytes) -> bool:
    """Whether the bytes carry the mark of a DICOM file, 128 bytes after their beginning."""
    return content[128:132] == b"DICM"


def dicom_size(content: bytes, most: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width), from the header. Raises DataError."""
    return _size(_dataset(content, header=True), most)


def read_dicom(content: bytes, most: int = MAX_PIXELS) -> "Image":
    """The image, of mode L or RGB. most: pixels that are decoded at most. Raises DataError."""
    from PIL import Image

    found = _dataset(content, header=False)
    height, width = _size(found, most)
    pixels = _stored(found, height, width)
    with data_error(
        "a DICOM file that makes no image"
    ):  # elements of any kind may stand in any place
        if pixels.shape[:2] != (height, width) or pixels.shape[2:] not in ((), (3,)):
            raise ValueError(f"its pixels have shape {pixels.shape}")
        return Image.fromarray(_shown(pixels, found))


@cache
def _library() -> Any:
    try:
        import pydicom
        import pydicom.encaps
        import pydicom.pixels
    except ImportError:
        raise DataError("reading DICOM needs pydicom; pip install 'sfumato[medical]'") from None
    # It warns of values that break the standard in ways that do not matter here.
    warnings.filterwarnings("ignore", module="pydicom")
    return pydicom


def _dataset(content: bytes, header: bool) -> Any:
    library = _library()
    for mark, name in _DEFLATED.items():
        if mark in content:
            raise DataError(f"transfer syntax {name} is not read; convert it to another one")
    with data_error("cannot be read as DICOM"):  # hostile bytes
        return library.dcmread(io.BytesIO(content), stop_before_pixels=header)


def _size(found: Any, most: int) -> tuple[int, int]:
    with data_error("a DICOM file without an image"):
        height, width = int(found.Rows), int(found.Columns)
        frames = int(found.get("NumberOfFrames") or 1)
        deep = int(found.BitsAllocated) <= 16 and int(found.get("SamplesPerPixel") or 1) <= 3
    if frames != 1:
        raise DataError(f"has {frames} frames; store each as a file of its own")
    if not deep or height < 1 or width < 1:
        raise DataError("a DICOM image of no pixels, or of more than 16 bits or 3 samples in each")
    pixel_count(height, width, most)
    return height, width


def _stored(found: Any, height: int, width: int) -> Shaped[np.ndarray, "h w ..."]:
    """The stored values; colors as RGB."""
    library = _library()
    try:
        syntax = found.file_meta.TransferSyntaxUID
        if syntax.is_compressed:
            _check_inside(
                library.encaps.get_frame(found.PixelData, 0, number_of_frames=1), height, width
            )
        pixels = library.pixels.pixel_array(found)
        if found.PhotometricInterpretation == "PALETTE COLOR":
            pixels = library.pixels.apply_color_lut(pixels, found)
            pixels = (pixels >> 8 * (pixels.itemsize - 1)).astype(np.uint8)
        return pixels
    except DataError:
        raise
    except Exception as error:  # each plug-in has its own
        name = getattr(
            getattr(getattr(found, "file_meta", None), "TransferSyntaxUID", None), "name", "none"
        )
        raise DataError(
            f"its pixels, of transfer syntax {name}, cannot be read ({said(error)}); install a plug-in of pydicom such "
            "as pylibjpeg, or convert it to Explicit VR Little Endian"
        ) from None


def _check_inside(frame: bytes, height: int, width: int) -> None:
    """A JPEG within may claim more pixels than the file around it. Raises ValueError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(frame), formats=("JPEG", "JPEG2000")) as image:
            size = image.size
    except UnidentifiedImageError:  # of another kind, which its plug-in is to bound
        return
    if size != (width, height):
        raise ValueError(
            f"the JPEG within is of {size[0]} x {size[1]} pixels, not {width} x {height}"
        )


def _shown(pixels: Shaped[np.ndarray, "h w ..."], found: Any) -> UInt8[np.ndarray, "h w ..."]:
    if pixels.ndim == 3:
        deep = pixels.dtype.itemsize > 1
        return np.ascontiguousarray(
            pixels if not deep else pixels >> max(int(found.BitsStored) - 8, 0), np.uint8
        )
    values = _library().pixels.apply_modality_lut(pixels, found)
    if "WindowCenter" in found and "WindowWidth" in found:
        share = _windowed(values.astype(np.float64), found)
    elif found.get("VOILUTSequence"):
        bits = int(found.VOILUTSequence[0].LUTDescriptor[2])
        share = _library().pixels.apply_voi(values, found) / (2.0**bits - 1)
    elif values.dtype.itemsize == 1 or (int(found.BitsStored) <= 8 and values is pixels):
        share = values / 255.0
    else:
        low, high = float(values.min()), float(values.max())
        share = (values - low) / max(high - low, 1e-30)
    gray = np.rint(255 * np.nan_to_num(share).clip(0, 1)).astype(np.uint8)
    return 255 - gray if found.PhotometricInterpretation == "MONOCHROME1" else gray


def _windowed(values: np.ndarray, found: Any) -> np.ndarray:
    """From 0 to 1 over the first window; the three functions of PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    center, width = (_first(found[name].value) for name in ("WindowCenter", "WindowWidth"))
    kind = str(found.get("VOILUTFunction") or "LINEAR").upper()
    if kind == "SIGMOID":
        return 1 / (1 + np.exp((-4 * (values - center) / width).clip(-500, 500)))
    if kind == "LINEAR":
        center, width = center - 0.5, width - 1
    return (values - center) / max(width, 1e-30) + 0.5


def _first(value: Any) -> float:
    return float(value if isinstance(value, (int, float, str)) else value[0])
