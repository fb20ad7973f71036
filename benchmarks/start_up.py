"""How long a folder of many images takes from the start to the first step, and how much memory.

    python benchmarks/start_up.py [--n 100000] [--classes 1000] [--train]
    python benchmarks/start_up.py --packed [--n 1281167]     # `sfumato data pack`, then three steps of DP-SGD on the pack
    python benchmarks/start_up.py --decoders     # Pillow, whole and scaled, beside simplejpeg if it is installed

It makes n hard links to a few tiny JPEGs, in train/ (and 1 in 26 in val/, as ImageNet has), and removes them at the
end. --train: also `sfumato train` on them, one step of DP-SGD, in a process of its own.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sfumato import data
from sfumato.core.keys import SecretKey
from sfumato.data.copies import find_copies
from sfumato.data.source import Source

LINKS = 30_000
"""To one file; file systems allow no more than about twice as many."""


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def tiny(k: int) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def make(root: Path, n: int, classes: int) -> None:
    """train/CLASS/CLASS_k.JPEG, n in all, and val/ with 1 for 26."""
    for split, count in (("train", n), ("val", n // 26)):
        place = root / split
        for c in range(classes):
            (place / f"n{c:08d}").mkdir(parents=True)
        for k in range(count):
            if k % LINKS == 0:
                (place / f"{k}.src").write_bytes(tiny(k))
            name = f"n{k % classes:08d}"
            os.link(place / f"{k - k % LINKS}.src", place / name / f"{name}_{k}.JPEG")
        for source in place.glob("*.src"):
            source.unlink()


def measured(root: Path, n: int) -> None:
    key, before = SecretKey.from_insecure_seed(0), resident()
    options = data.ReadOptions()

    def timed(what: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        found = work()
        held = resident() - before
        print(
            f"{what:<34} {time.perf_counter() - began:8.2f} s   {held / n:6.0f} bytes an image held"
        )
        return found

    listed = timed("list (names, labels)", lambda: data.find(str(root), None, options, False))
    timed("describe (for the plan)", lambda: listed.describe(0.0, options))
    splits = timed("open (64 headers of each part)", lambda: listed.open(0.0, options))
    train: Source = splits.train
    timed("stamp (sizes and times of files)", lambda: train.stamp(key.mac))
    timed("fingerprint (all encoded bytes)", lambda: train.fingerprint(key.mac))
    timed("copies (val/ is read, too)", lambda: find_copies(train, splits.validation))
    timed("first batch of 64, decoded", lambda: train.raw(np.arange(0, n, n // 64)[:64]))


def packed(root: Path, out: Path) -> None:
    """The folder as records, by the command."""
    began = time.perf_counter()
    program = "import sys; from sfumato.cli import main; main(sys.argv[1:])"
    arguments = [
        sys.executable,
        "-c",
        program,
        "data",
        "pack",
        str(root),
        str(out),
        "--log",
        "quiet",
    ]
    subprocess.run(arguments, check=True)
    print(f"packed: {time.perf_counter() - began:.1f} s")


def trained(root: Path, out: Path, steps: int = 1) -> None:
    """Steps of DP-SGD in a process of its own, as its lines tell it."""
    command = f"train --data {root} --method dp-sgd --model cnn --steps {steps} --batch 64 --out {out} --log json"
    began = time.perf_counter()
    program = "import sys; from sfumato.cli import main; main(sys.argv[1:])"
    arguments = [sys.executable, "-c", program, *command.split()]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] in ("stage", "progress"):
                print(f"{line[:60].strip():<70} {time.perf_counter() - began:8.1f} s")
    memory = json.loads((out / "result.json").read_text())["peak_memory_bytes"]
    print(f"train: {time.perf_counter() - began:.1f} s in all, {memory / 1e9:.2f} GB at most")


def photo(height: int, width: int) -> bytes:
    """A JPEG of a random image whose spectrum falls as those of photographs do."""
    stream = np.random.default_rng(0)
    waves = np.fft.rfft2(stream.standard_normal((3, height, width)))
    far = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    far[0, 0] = 1
    pixels = np.fft.irfft2(waves / far, s=(height, width))
    pixels = 255 * (pixels - pixels.min()) / np.ptp(pixels)
    out = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0).astype(np.uint8)).save(out, "JPEG", quality=95)
    return out.getvalue()


def decoders() -> None:
    """CPU time of an image, and how far its pixels are on average from those of the whole image decoded."""
    from sfumato.data.decode import _fit, decode

    def whole(content: bytes, side: int) -> np.ndarray:
        return np.asarray(_fit(Image.open(io.BytesIO(content)).convert("RGB"), side))

    def scaled(content: bytes, side: int) -> np.ndarray:
        return decode(content, data.ReadOptions(resize=side))

    def simple(content: bytes, side: int) -> np.ndarray:
        import simplejpeg

        pixels = simplejpeg.decode_jpeg(content, min_height=side, min_width=side)
        return np.asarray(_fit(Image.fromarray(pixels), side))

    for (height, width), side in (
        ((375, 500), 224),
        ((600, 800), 224),
        ((1000, 1500), 224),
        ((375, 500), 32),
    ):
        content = photo(height, width)
        told = []
        for each in (whole, scaled, simple):
            try:
                off = abs(each(content, side).astype(int) - whole(content, side)).mean()
            except ImportError:
                continue
            times = []
            for _ in range(5):
                began = time.process_time()
                for _ in range(10):
                    each(content, side)
                times.append((time.process_time() - began) / 10)
            told.append(f"{each.__name__} {1e3 * min(times):.2f} ms, off by {off:.2f}")
        print(f"{width}x{height} -> {side}: {'; '.join(told)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--packed", action="store_true")
    parser.add_argument("--decoders", action="store_true")
    asked = parser.parse_args()
    if asked.decoders:
        decoders()
        return
    place = Path(tempfile.mkdtemp(prefix="start_up"))
    try:
        began = time.perf_counter()
        make(place / "set", asked.n, asked.classes)
        print(f"{asked.n:,} files made in {time.perf_counter() - began:.0f} s")
        if asked.packed:
            packed(place / "set", place / "pack")
            shutil.rmtree(place / "set")
            trained(place / "pack", place / "run", steps=3)
            return
        measured(place / "set", asked.n)
        if asked.train:
            trained(place / "set", place / "run")
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    main()
