"""DICOM and TIFF: the stated rule of brightness, what is refused, hostile files."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile_helpers import EVERY_FILE, refused, spoiled
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sfumato import data
from sfumato.core.errors import DataError
from sfumato.data import ReadOptions
from sfumato.data.decode import decode, upright_size

GRAY = ReadOptions(gray=True)


def dicom(pixels: np.ndarray, syntax: str = "1.2.840.10008.1.2.1", **elements: Any) -> bytes:
    """A file of one image; elements by their DICOM keywords."""
    pydicom = pytest.importorskip("pydicom")
    found = pydicom.Dataset()
    found.Rows, found.Columns = pixels.shape[:2]
    bits = 8 * pixels.dtype.itemsize
    found.BitsAllocated, found.BitsStored, found.HighBit = bits, bits, bits - 1
    found.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    found.PixelRepresentation = int(pixels.dtype.kind == "i")
    found.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    found.PlanarConfiguration = 0
    found.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    found.SOPClassUID, found.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    for name, value in elements.items():
        setattr(found, name, value)
    found.file_meta = pydicom.dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    content = io.BytesIO()
    pydicom.dcmwrite(content, found, enforce_file_format=True)
    return content.getvalue()


EIGHT = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
DEEP = (np.arange(35).reshape(5, 7) * 100 - 1000).astype(np.int16)
BRIGHTNESS = {
    "8 bits stay": (EIGHT, {}, EIGHT),
    "MONOCHROME1 is inverted": (EIGHT, {"PhotometricInterpretation": "MONOCHROME1"}, 255 - EIGHT),
    "deep images are stretched": (DEEP, {}, (DEEP + 1000) / 3400 * 255),
    "a slope is applied, and turns": (
        DEEP,
        {"RescaleSlope": "-2", "RescaleIntercept": "5"},
        255 - (DEEP + 1000) / 3400 * 255,
    ),
    "the first window, linear": (
        DEEP,
        {"WindowCenter": [500, 9], "WindowWidth": [1001, 9]},
        (((DEEP - 499.5) / 1000 + 0.5) * 255).clip(0, 255),
    ),
    "a window of rescaled values": (
        DEEP,
        {"RescaleSlope": "2", "RescaleIntercept": "1", "WindowCenter": "0", "WindowWidth": "2001"},
        (((2.0 * DEEP + 1 + 0.5) / 2000 + 0.5) * 255).clip(0, 255),
    ),
    "an exact window": (
        DEEP,
        {"WindowCenter": "0", "WindowWidth": "1000", "VOILUTFunction": "LINEAR_EXACT"},
        ((DEEP / 1000 + 0.5) * 255).clip(0, 255),
    ),
    "a sigmoid": (
        DEEP,
        {"WindowCenter": "0", "WindowWidth": "1000", "VOILUTFunction": "SIGMOID"},
        255 / (1 + np.exp(-4 * DEEP / 1000)),
    ),
    "one value everywhere": (np.full((5, 7), 900, np.uint16), {}, np.zeros((5, 7))),
}


@pytest.mark.parametrize("kind", BRIGHTNESS)
def test_values_become_brightness_by_the_stated_rule(kind: str) -> None:
    stored, elements, expected = BRIGHTNESS[kind]
    content = dicom(stored, **elements)
    assert upright_size(content) == (5, 7)
    assert np.abs(decode(content, GRAY)[..., 0] - np.asarray(expected)).max() <= 0.51


def test_colors_and_files_of_a_table_without_an_ending(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    for k in range(6):
        pixels = stream.integers(0, 256, (5, 7, 3), np.uint8)
        (tmp_path / f"{k}").write_bytes(dicom(pixels))
    np.testing.assert_array_equal(decode((tmp_path / "5").read_bytes(), ReadOptions()), pixels)
    (tmp_path / "t.csv").write_text("image,target\n" + "".join(f"{k},{k % 2}\n" for k in range(6)))
    train = data.open(tmp_path / "t.csv", options=ReadOptions(test_fraction=0.0)).train
    np.testing.assert_array_equal(train.raw([5])[0], pixels)


def test_what_makes_no_honest_image_is_refused_by_name() -> None:
    wrong = {
        "has 2 frames": dicom(EIGHT, NumberOfFrames=2),
        "35 pixels": dicom(EIGHT),
        "Deflated Explicit VR": dicom(EIGHT, "1.2.840.10008.1.2.1.99"),
        "makes no image": dicom(EIGHT, WindowCenter=[], WindowWidth=[]),
        "cannot be read": dicom(EIGHT, Rows=6),
    }
    for says, content in wrong.items():
        options = ReadOptions(max_pixels=34) if "35" in says else GRAY
        with pytest.raises(DataError) as error:
            decode(content, options)
        assert says.replace("35 pixels", "of more than 34") in str(error.value)


def test_a_jpeg_within_that_claims_more_pixels_is_refused() -> None:
    pytest.importorskip("pydicom")
    from pydicom.encaps import encapsulate

    large = io.BytesIO()
    Image.new("L", (3000, 2000)).save(large, "JPEG")
    content = dicom(EIGHT, "1.2.840.10008.1.2.4.50", PixelData=encapsulate([large.getvalue()]))
    with pytest.raises(DataError, match="3000 x 2000 pixels, not 7 x 5"):
        decode(content, GRAY)


def tiff(image: Image.Image, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, "TIFF", **options)
    return content.getvalue()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate"])
def test_tiff_of_8_and_16_bits(compression: str) -> None:
    colors = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    content = tiff(Image.fromarray(colors), compression=compression)
    np.testing.assert_array_equal(decode(content, ReadOptions()), colors)
    deep = np.arange(35, dtype=np.uint16).reshape(5, 7) * 1800
    content = tiff(Image.fromarray(deep), compression=compression)
    np.testing.assert_array_equal(decode(content, GRAY)[..., 0], np.rint(deep / 257))


def test_a_tiff_that_lies_on_its_side_is_upright_in_size_and_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = tiff(Image.fromarray(EIGHT), exif=exif)
    np.testing.assert_array_equal(decode(content, GRAY)[..., 0], np.rot90(EIGHT, -1))
    assert upright_size(content) == (7, 5)


def test_pages_and_floats_of_tiff_are_refused() -> None:
    image = Image.fromarray(EIGHT)
    with pytest.raises(DataError, match="several pages"):
        decode(tiff(image, save_all=True, append_images=[image]), GRAY)
    with pytest.raises(DataError, match="floats"):
        decode(tiff(Image.fromarray(EIGHT.astype(np.float32))), GRAY)
    with pytest.raises(DataError, match="of more than 34"):
        decode(tiff(image), ReadOptions(max_pixels=34))


def test_without_pydicom_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from sfumato.data import dicom as module

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.dcm").write_bytes(bytes(128) + b"DICM" + bytes(40))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    module._library.cache_clear()
    assert "pip install 'sfumato[medical]'" in refused(lambda: data.open(tmp_path))
    module._library.cache_clear()


KINDS = ("dicom", "tiff", "tiff_lzw")


@pytest.mark.parametrize("kind", KINDS)
@EVERY_FILE
@given(seed=st.integers(0, 2**32 - 1))
def test_a_spoiled_file_decodes_to_bounded_pixels_or_is_refused(kind: str, seed: int) -> None:
    if kind == "dicom":
        content = dicom(DEEP, WindowCenter="0", WindowWidth="1000")
    else:
        options = {} if kind == "tiff" else {"compression": kind}
        content = tiff(Image.fromarray(EIGHT), **options)
    hurt = spoiled(content, np.random.default_rng(seed))
    try:
        upright_size(hurt, 10**4)
        assert decode(hurt, ReadOptions(max_pixels=10**4)).size <= 3 * 10**4
    except Exception as error:  # the caller turns any of them into a refusal that names the file
        assert not isinstance(error, (MemoryError, RecursionError, AssertionError))
