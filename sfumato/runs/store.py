"""`sfumato features`: a fixed feature map over a data set, into a directory that any solver can
stream.

    manifest.json                       what the rows are; digests once a split is complete
    SPLIT.features.npy SPLIT.labels.npy     memory-mapped matrix, class numbers; train, validation, test, as far as there are
    SPLIT.units.npy                     with --unit: to which unit each row belongs
    SPLIT.names.npy                     of a folder: the files' names, by which `sfumato fit --validation` holds out
    progress.json                       rows done, while there are more to do
    shard-I-of-N/                       with --shard: the same of one share, until all are there (`runs/joining.py`)

The matrix is as private as the images: whoever has a row can often draw the image. It is here
because its owner asked for it; only the owner can read it (mode 0600, directory 0700), and the
manifest says so.
"""

import hashlib
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np

from sfumato.core import files, trees
from sfumato.core.errors import ArgumentError, RunError
from sfumato.data import finite
from sfumato.data.row_shards import Shard, present
from sfumato.data.row_store import FORMAT, MANIFEST, Store, digest, npy, read_manifest
from sfumato.data.source import Source
from sfumato.features import by_name
from sfumato.features.extraction import chunk, extract
from sfumato.features.feature_map import FeatureMap
from sfumato.plan import public_weights
from sfumato.plan.choice import resolve
from sfumato.plan.config import FeaturesConfig, MethodConfig
from sfumato.plan.public_facts import PublicWeights
from sfumato.runs import joining
from sfumato.runs.progress import Progress, make_progress

PRIVATE = (
    "These rows are as private as the images they were computed from: no noise was added; so are the names of "
    "their files, which may lie beside them. Keep them where the images may be kept, "
    "and delete them when they have served."
)
_PROGRESS = "progress.json"
_SAVE_SECONDS = 5.0


def write_store(config: FeaturesConfig) -> Store:
    """Compute what is still missing, of all rows or of one share of them, and return the manifest of
    what is there. Raises RunError if the directory holds something else."""
    shard = None if config.shard is None else Shard.parse(config.shard)
    public = public_weights.find(
        MethodConfig(model=config.model, weights=config.weights, size=config.size)
    )
    if public is None and config.model not in ("auto", *by_name.MAPS):
        raise ArgumentError(
            "model",
            config.model,
            f"fixed features are {', '.join(by_name.FEATURES)}; or give --weights",
        )
    where = config.data
    where.check()
    splits = where.opened(unit=config.unit)
    splits.train.task.need_classes("features", str(config.out))
    others = {"validation": splits.validation, "test": splits.test}
    sources = {"train": splits.train} | {
        split: source for split, source in others.items() if source is not None
    }
    asked = MethodConfig("sgd", model=config.model)  # rows are for heads
    _, model, _ = resolve(asked, splits.train.examples, splits.train.shape, public)
    planned, feature_map = _plan(config, model, sources, public)
    if shard is None or (config.out / MANIFEST).exists():
        return _write(config, config.out, planned, sources, feature_map)
    joining.refuse_other_counts(config.out, shard)
    own = joining.planned(planned, sources, shard)
    store = _write(
        config, shard.folder(config.out), own, joining.shares(sources, shard), feature_map
    )
    if joining.missing(config.out, shard):
        return store
    return joining.join(config.out, planned, shard, _save) or store


def shares_left(config: FeaturesConfig) -> list[Shard]:
    """With --shard: which shares are not complete."""
    if config.shard is None or (config.out / MANIFEST).exists():
        return []
    return joining.missing(config.out, Shard.parse(config.shard))


def _write(
    config: FeaturesConfig,
    out: Path,
    planned: Store,
    sources: dict[str, Source],
    feature_map: FeatureMap,
) -> Store:
    """The rows of all sources, into a directory of their own."""
    store = _begin(out, planned)
    with closing(make_progress(config.log)) as progress:
        for split, source in sources.items():
            if spoiled := finite.of_source(source, f"{split} "):
                progress.say(f"warning   {spoiled}; their rows are zeros", warning=str(spoiled))
            if split not in store.digests:
                store = _fill(out, store, split, source, feature_map, progress)
    (out / _PROGRESS).unlink(missing_ok=True)
    return store


def hash_of(feature_map: FeatureMap, name: str) -> str:
    """SHA-256 over the map's name and all its arrays."""
    found = hashlib.sha256(name.encode())
    arrays = eqx.filter(feature_map, eqx.is_array)
    for leaf_name, leaf in trees.by_name(arrays).items():
        array = np.asarray(leaf)
        found.update(
            f"{leaf_name} {array.dtype} {array.shape}".encode()
            + np.ascontiguousarray(array).tobytes()
        )
    return found.hexdigest()


def _plan(
    config: FeaturesConfig, model: str, sources: dict[str, Source], public: PublicWeights | None
) -> tuple[Store, FeatureMap]:
    train, where = sources["train"], config.data
    preprocessing: dict[str, Any] = {
        "shape": list(train.shape),
        "resize": where.resize,
        "gray": where.gray,
        "validation": where.validation,
        "test_fraction": where.test_fraction,
        "share": where.share,
    }
    if config.unit is not None:
        preprocessing |= {"unit": config.unit}
    if public is not None:
        preprocessing |= {"weights": public.sha256, "size": public.input.size}
        if public.input.crop_larger is not None:
            preprocessing |= {"crop_larger": public.input.crop_larger}
    feature_map = public_weights.feature_map(model, train.shape, public)
    size = public_weights.feature_count(model, train.shape, public)
    counts = {split: len(source) for split, source in sources.items()}
    return Store(
        train.name,
        model,
        hash_of(feature_map, model),
        preprocessing,
        "image",
        train.class_names,
        size,
        config.dtype,
        counts,
        {},
        {split: images_of(source) for split, source in sources.items()},
    ), feature_map


def images_of(source: Source) -> str:
    """SHA-256 of all that a store takes from a split: encoded images and what decodes them (or pixels),
    labels, units, names. Each job of several reads all images for it, so that none adds rows of others.
    """
    names = "\0".join(() if source.names is None else map(str, source.names))

    def digest_of(content: bytes) -> str:
        return hashlib.sha256(content + names.encode("utf-8", "surrogateescape")).hexdigest()

    return source.fingerprint(digest_of)


def _begin(out: Path, planned: Store) -> Store:
    """The store as far as it has come; a new directory if there is none."""
    if not out.exists():
        if out.name.startswith("shard-"):
            files.make_directory(out.parent, 0o700)
        files.make_directory(out, 0o700)
        _save(out, planned)
        return planned
    if not (out / MANIFEST).exists():
        if others := present(out):
            raise RunError(
                f"out={str(out)!r}: holds share {others[0]} of a store; give --shard, or choose another --out"
            )
        raise RunError(f"out={str(out)!r}: exists and is not a feature store; choose another --out")
    found = read_manifest(out)
    if not found.images:
        raise RunError(
            f"out={str(out)!r}: a feature store of an earlier version, which did not note its images; `sfumato fit` reads "
            "it, but it cannot be continued: make it anew with another --out"
        )
    for name, wanted in asdict(planned).items():
        if name == "images" and found.images != wanted:
            raise RunError(
                f"out={str(out)!r}: a feature store of other images, labels or names, or decoded by another version of "
                "Pillow; choose another --out"
            )
        if name != "digests" and getattr(found, name) != wanted:
            raise RunError(
                f"out={str(out)!r}: a feature store with {name}={getattr(found, name)!r}, not {wanted!r}; choose "
                "another --out"
            )
    return found


def _save(out: Path, store: Store) -> None:
    files.write_json(out / MANIFEST, {"format": FORMAT, "private": PRIVATE, **asdict(store)})


def _fill(
    out: Path, store: Store, split: str, source: Source, feature_map: FeatureMap, progress: Progress
) -> Store:
    rows_file, labels_file = store.files(out, split)
    shape, dtype = (len(source), store.features), np.dtype(store.dtype)
    done = _done(out, split, len(source)) if _holds(rows_file, shape, dtype) else 0
    files.private(rows_file)
    rows = np.lib.format.open_memmap(
        rows_file, "r+" if done else "w+", dtype, None if done else shape
    )
    files.reserve(rows_file)
    saved = time.monotonic()

    def after_chunk(count: int) -> None:
        nonlocal saved
        progress.advance(count)
        if time.monotonic() - saved > _SAVE_SECONDS:
            rows.flush()
            files.write_json(out / _PROGRESS, {split: max(done, count - chunk())})
            saved = time.monotonic()

    progress.begin(f"{split} features", len(source), "images", done=done)
    extract(feature_map, source, after_chunk, rows, done)
    rows.flush()
    files.write_atomic(labels_file, npy(source.labels), mode=0o600)
    if source.owners is not None:
        files.write_atomic(out / f"{split}.units.npy", npy(source.owners), mode=0o600)
    names = None if source.names is None else np.asarray(source.names)
    if names is not None:
        files.write_atomic(out / f"{split}.names.npy", npy(names), mode=0o600)
    store.digests[split] = digest(rows, source.labels, names)
    _save(out, store)
    return store


def _done(out: Path, split: str, n: int) -> int:
    """How many of the split's n rows are there; 0 where progress.json says nothing that can be."""
    try:
        found = files.read_json(out / _PROGRESS)
    except (OSError, ValueError):
        return 0
    done = found.get(split) if isinstance(found, dict) else None
    return done if type(done) is int and 0 <= done < n else 0


def _holds(path: Path, shape: tuple[int, int], dtype: np.dtype) -> bool:
    """Whether the file is a whole matrix of this shape: one that was cut short would be mapped with
    zeros at its end."""
    try:
        found = np.lib.format.open_memmap(path, "r")
    except Exception:  # none there, or damaged: the header is parsed as Python, which has its own
        return False
    return (
        found.shape == shape
        and found.dtype == dtype
        and path.stat().st_size == found.offset + found.nbytes
    )
