"""How fast images come to the device with their views: our feed beside torch's DataLoader and grain, on
the same files, in one process's run. `make bench-feed`.

A folder of JPEGs is made on the spot, packed by `sfumato data pack`, and deleted afterwards. Everybody reads the same
images from both, in a random order, with the same number of cores, and ends with K shifted and mirrored views of each
image, float32, on the device. Ours sends images as uint8 with the draws of their views, which are made in a
program; the others make them on the host, as our feed did before. *Decoded* leaves the views away: everybody sends
uint8. The loaders take turns, and the best of two rounds counts, as other work may run beside. What is not installed is
left out: `pip install torch grain`.

`waits`: the share of time that a device which takes a fixed time for each batch is idle, twice as fast as the feed
could be at best, and half as fast.
"""

import argparse
import io
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from record import machine, write_section

from sfumato import data
from sfumato.augment.views import views_of
from sfumato.core.keys import SecretKey
from sfumato.data.ahead import nbytes, stored
from sfumato.data.formats.array_records import ENDING, opened
from sfumato.data.formats.examples import parse
from sfumato.data.formats.packs import IMAGE
from sfumato.networks.input import Input, pixels
from sfumato.runs.packing import SHARD, pack
from sfumato.sampling import FullBatch
from sfumato.train.feed import Feed

CASES = ((32, 16, 4000, 64), (224, 4, 1200, 32))
"""Side, views, images, images at once."""
CORES = len(os.sched_getaffinity(0))
KEY = SecretKey.from_insecure_seed(0)
RANDOM = "readahead_buffer_size:0,max_parallelism:0"


def folder(where: Path, side: int, count: int) -> Path:
    """Smooth noise, which compresses about as photographs do."""
    from PIL import Image

    stream = np.random.default_rng(side)
    for k in range(count):
        place = where / "train" / f"class{k % 4}"
        place.mkdir(parents=True, exist_ok=True)
        small = stream.integers(0, 256, (max(4, side // 8),) * 2 + (3,), np.uint8)
        image = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        image.save(place / f"{k:06d}.jpg", quality=90)
    shutil.copytree(where / "train" / "class0", where / "test" / "class0")
    return where


def on_host(image: np.ndarray, count: int, stream: np.random.Generator) -> np.ndarray:
    """K views as float32, by the fancy indexing that NumPy has for it."""
    side, reach = image.shape[0], image.shape[0] // 8
    image = image.astype(np.float32) / np.float32(255)
    views = np.empty((count, *image.shape), np.float32)
    for view in views:
        rows, columns = (
            np.abs(np.arange(side) + stream.integers(-reach, reach + 1)) for _ in range(2)
        )
        rows, columns = (np.minimum(each, 2 * (side - 1) - each) for each in (rows, columns))
        view[:] = image[rows[:, None], columns[:: stream.choice((1, -1))][None, :]]
    return views


class Files:
    """For the others: reads image k of a folder or of a pack, decodes it with Pillow and makes its views."""

    def __init__(self, where: Path, views: int):
        self.views = views
        self.paths = sorted((where / "train").rglob("*.jpg"))
        self.shards = sorted(where.glob(f"train-*{ENDING}"))
        self.readers: dict[int, Any] = {}  # by process

    def __len__(self) -> int:
        return len(self.paths) or sum(each.num_records() for each in self._opened())

    def _opened(self) -> list[Any]:
        if os.getpid() not in self.readers:
            self.readers[os.getpid()] = [opened(path, RANDOM) for path in self.shards]
        return self.readers[os.getpid()]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "readers": {}}

    def content(self, k: int) -> bytes:
        if self.paths:
            return self.paths[k].read_bytes()
        (record,) = self._opened()[k // SHARD].read([k % SHARD])
        (span,) = parse(record)[IMAGE]
        return record[slice(*span)]

    def __getitem__(self, k: int) -> np.ndarray:
        from PIL import Image

        with Image.open(io.BytesIO(self.content(int(k)))) as image:
            decoded = np.asarray(image.convert("RGB"))
        if not self.views:
            return decoded
        return on_host(decoded, self.views, np.random.default_rng(int(k)))


def ours(where: Path, views: int, batch: int) -> tuple[Iterator[Any], Callable[[Any], Any]]:
    """(batches, batch -> its views on the device)."""
    source = data.open(str(where)).train
    if not views:
        alone = Feed(lambda at, step: stored(source, at), FullBatch(1, len(source)), batch)
        return (part for part, _ in alone.step(KEY, 0)), jax.device_put
    made, _ = views_of(
        "shift",
        views,
        source.shape,
        Input(),
        lambda name, *at: KEY.words(("v", at[0], *name), *at[1:]),
    )
    feed = Feed(
        lambda at, step: (stored(source, at), made.draws(at, step)),
        FullBatch(1, len(source)),
        batch,
    )
    program = jax.jit(jax.vmap(lambda image, draws: pixels(made(image, draws))))
    return (part for part, _ in feed.step(KEY, 0)), lambda part: program(*part)


def torchs(where: Path, views: int, batch: int) -> tuple[Iterator[Any], Callable[[Any], Any]]:
    from torch.utils.data import DataLoader

    loader = DataLoader(
        Files(where, views),
        batch,
        shuffle=True,
        num_workers=CORES,
        collate_fn=np.stack,
        prefetch_factor=4,
    )
    return iter(loader), jax.device_put


def grains(
    where: Path, views: int, batch: int, workers: int = 0
) -> tuple[Iterator[Any], Callable[[Any], Any]]:
    import grain
    from absl import flags

    flags.FLAGS.mark_as_parsed()  # else worker processes do not start
    files = Files(where, views)
    read = grain.MapDataset.range(len(files)).shuffle(seed=0).map(files.__getitem__)
    options = grain.ReadOptions(num_threads=CORES, prefetch_buffer_size=4 * batch)
    batches = read.to_iter_dataset(options).batch(batch)
    if workers:
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return iter(batches), jax.device_put


LOADERS = {
    "sfumato": ours,
    "torch DataLoader": torchs,
    "grain, threads": grains,
    "grain, processes": partial(grains, workers=CORES),
}
ROUNDS = 2


def timed(name: str, where: Path, views: int, batch: int, pause: float) -> tuple[float, float, int]:
    """(images a second, share of time that the device waits, bytes sent for each image). pause: what
    the device takes for a batch. The first two batches are not counted: workers start, programs
    compile."""
    batches, finish = LOADERS[name](where, views, batch)
    for _ in range(2):
        jax.block_until_ready(finish(next(batches)))
    images, waited, sent, began = 0, 0.0, 0, time.monotonic()
    asked = time.monotonic()
    for part in batches:
        jax.block_until_ready(finish(part))
        waited += time.monotonic() - asked
        images += len(jax.tree.leaves(part)[0])
        sent += nbytes(part)
        time.sleep(pause)
        asked = time.monotonic()
    took = time.monotonic() - began
    return images / took, waited / took, sent // max(1, images)


def best(where: Path, views: int, batch: int, pause: float) -> dict[str, tuple[float, float, int]]:
    """Of each loader that is installed, its fastest round."""
    found: dict[str, list[tuple[float, float, int]]] = {}
    for _ in range(ROUNDS):
        for name in LOADERS:
            try:
                found.setdefault(name, []).append(timed(name, where, views, batch, pause))
            except ImportError:
                print(f"{name}: not installed")
    return {name: max(rounds) for name, rounds in found.items() if rounds}


def measured(case: tuple[int, int, int, int]) -> list[str]:
    side, views, count, batch = case
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        of_files = folder(Path(place) / "images", side, count)
        pack(of_files, Path(place) / "pack", data.ReadOptions())
        for kind, where in (("folder", of_files), ("packed", Path(place) / "pack")):
            for each in (views, 0):
                what = f"{side} px, {f'K={each}' if each else 'decoded'}, {kind}"
                rates = best(where, each, batch, 0.0)
                first = rates["sfumato"][0]
                waits = [
                    best(where, each, batch, batch / first * f) if each and kind == "folder" else {}
                    for f in (0.5, 2.0)
                ]
                for name, (rate, _, sent) in rates.items():
                    shares = [f"{100 * part[name][1]:.0f} %" if part else "" for part in waits]
                    lines.append(
                        f"| {what} | {name} | {rate:,.0f} | {first / rate:.2f} | {batch * sent:,} | "
                        f"{' | '.join(shares)} |"
                    )
                    print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of images")
    scale = parser.parse_args().scale
    rows = []
    for side, views, count, batch in CASES:
        whole = max(8, int(scale * count) // batch) * batch  # our last batch would be filled up
        rows += measured((side, views, whole, batch))
    table = [
        f"`make bench-feed`, {CORES} cores: JPEGs from a folder or a pack, with their views, on the device (a CPU, which "
        "makes our views on the same cores). *Ours / theirs* is the ratio of rates. *Waits*: a device that takes "
        "half and twice the time per batch that our feed takes; what makes our views counts as waiting. "
        f"Bytes are those of a physical batch of {' and '.join(f'{each[3]} images of {each[0]} px' for each in CASES)}; "
        "those of the others are what ours were as long as views were made on the host. The best of two rounds.",
        "",
        "| case | feed | images/s | ours / theirs | bytes sent a batch | waits, fast device | waits, slow device |",
        "|---|---|---|---|---|---|---|",
        *rows,
    ]
    write_section("Feed", "\n".join([*table, "", f"On {machine()}."]))


if __name__ == "__main__":
    sys.exit(main())
