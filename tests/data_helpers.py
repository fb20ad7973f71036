"""Small data sets in every format that Sfumato reads, written the way their publishers write them."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

ROWS = {"train": 20, "test": 10}


def labeled_images(
    n: int, shape: tuple[int, ...], classes: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Random uint8 images; every class occurs."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), np.uint8), (np.arange(n) % classes).astype(np.uint8)


def idx_bytes(array: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim))
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.tobytes()
    )


def write_idx(
    folder: Path, joint: str = "-", ending: str = ".gz"
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The four IDX files; returns the arrays of "train" and "test"."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = parts[part] = labeled_images(ROWS[part], (28, 28), 10, seed=len(part))
        for kind, array in (("images", images), ("labels", labels)):
            data = idx_bytes(array)
            name = f"{prefix}-{kind}{joint}idx{array.ndim}-ubyte{ending}"
            (folder / name).write_bytes(gzip.compress(data) if ending else data)
    return parts


def cifar_parts(name: str) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Batches of each split: five and one for CIFAR-10, one and one for CIFAR-100."""
    classes = 10 if name == "cifar10" else 100
    n = 10 if name == "cifar10" else 200
    batches = 5 if name == "cifar10" else 1
    return {
        "train": [labeled_images(n, (32, 32, 3), classes, seed=k) for k in range(batches)],
        "test": [labeled_images(n, (32, 32, 3), classes, seed=99)],
    }


def joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([images for images, _ in parts]), np.concatenate(
        [labels for _, labels in parts]
    )


def cifar_files(name: str) -> dict[str, bytes]:
    """File name -> content."""
    parts, many = cifar_parts(name), name == "cifar10"
    files = {}
    for split, batches in parts.items():
        for k, (images, labels) in enumerate(batches, 1):
            base = {"train": f"data_batch_{k}", "test": "test_batch"}[split] if many else split
            planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
            coarse = [] if many else [np.full((len(labels), 1), 7, np.uint8)]
            columns = [*coarse, labels[:, None], planes]
            files[base + ".bin"] = np.concatenate(columns, axis=1).tobytes()
    return files


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def tar_gz(folder: str, files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def write_folder(
    root: Path, counts: dict[str, int], size: tuple[int, int] = (8, 6)
) -> dict[str, np.ndarray]:
    """`root`/class/k.png with the given number per class; returns pixels by relative path. `size`
    is (h, w)."""
    pixels = {}
    for seed, (name, n) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        images, _ = labeled_images(n, (*size, 3), 2, seed)
        for k, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{k}.png")
            pixels[f"{name}/{k}.png"] = image
    return pixels
