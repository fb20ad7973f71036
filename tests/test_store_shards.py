"""`sfumato features --shard I/N`: jobs in any order, some of them twice, make the store that one job
would have made."""

import json
from pathlib import Path

import numpy as np
import pytest
from run_helpers import refused, succeeds, tree

from sfumato.core import machine
from sfumato.data.row_shards import Shard
from sfumato.features.extraction import CHUNK

N = 3 * CHUNK - 20
"""Images: three groups, the last not full."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, stream = tmp_path_factory.mktemp("images") / "toy.npz", np.random.default_rng(0)
    parts = {"train": N, "test": 30}
    pixels = {
        f"x_{p}": stream.integers(256, size=(n, 8, 8, 1)).astype(np.uint8) for p, n in parts.items()
    }
    np.savez(path, **pixels, **{f"y_{p}": np.arange(n) % 3 for p, n in parts.items()})
    return path


def features(images: Path, out: Path, *more: object) -> tuple[object, ...]:
    return (
        "features",
        "--data",
        images,
        "--model",
        "scattering",
        "--log",
        "quiet",
        "--out",
        out,
        *more,
    )


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "store"
    succeeds(*features(images, out))
    return out


@pytest.mark.parametrize(
    "n, group, count", [(0, 64, 3), (1, 64, 3), (172, 64, 3), (172, 64, 5), (640, 64, 1)]
)
def test_every_row_is_in_one_share_and_groups_are_whole(n: int, group: int, count: int) -> None:
    parts = [each.part(n, group) for each in Shard(0, count).others()]
    assert [k for part in parts for k in part] == list(range(n))
    assert all(part.start % group == 0 for part in parts if part)


@pytest.mark.slow
def test_shares_in_any_order_and_some_twice_are_one_store_byte_by_byte(
    images: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    told = succeeds(*features(images, out, "--shard", "2/3"))
    assert "0/3, 1/3" in told
    succeeds(*features(images, out, "--shard", "0/3"))
    # a job that died within its rows, and the reader meanwhile
    share = out / "shard-1-of-3"
    refused(tmp_path, "fit", "--features", out, "--out", tmp_path / "run", says=("1/3", "--shard"))
    succeeds(*features(images, tmp_path / "other", "--shard", "1/3"))
    (tmp_path / "other/shard-1-of-3").rename(share)
    manifest = json.loads((share / "manifest.json").read_text())
    manifest["digests"].pop("train")
    (share / "manifest.json").write_text(json.dumps(manifest))
    (share / "train.labels.npy").unlink()
    succeeds(*features(images, out, "--shard", "0/3"))
    assert not (out / "manifest.json").exists(), "a share that is begun is none that is complete"
    succeeds(*features(images, out, "--shard", "1/3"))
    assert tree(out) == tree(whole)
    assert (out.stat().st_mode & 0o777) == 0o700
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in out.glob("*.npy"))
    before = tree(out)
    succeeds(*features(images, out, "--shard", "2/3"))
    succeeds(*features(images, out))
    assert tree(out) == before, "a job that comes again finds nothing to do"


@pytest.mark.slow
def test_what_a_fit_learns_is_the_same(images: Path, whole: Path, tmp_path: Path) -> None:
    for k in (1, 0):
        succeeds(*features(images, tmp_path / "store", "--shard", f"{k}/2"))
    models = []
    for name, store in (("a", whole), ("b", tmp_path / "store")):
        fit = ("--method", "means", "--epsilon", "8", "--insecure-seed", "1", "--log", "quiet")
        succeeds("fit", "--features", store, *fit, "--out", tmp_path / name)
        models.append((tmp_path / name / "model.safetensors").read_bytes())
    assert models[0] == models[1]


def test_shares_of_other_data_or_another_number_of_jobs_are_refused(
    images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    succeeds(*features(images, out, "--shard", "0/2"))
    refused(tmp_path, *features(images, out, "--shard", "1/3"), says=("1/3", "0/2", "--out"))
    refused(tmp_path, *features(images, out), says=("0/2", "--shard"))
    with np.load(images) as found:
        arrays = dict(found)
    arrays["y_train"] = arrays["y_train"][::-1]
    np.savez(tmp_path / "toy.npz", **arrays)
    arguments = features(tmp_path / "toy.npz", out, "--shard", "1/2")
    for _ in range(2):
        with pytest.raises(AssertionError, match=r"share 0/2.*remove the one that is wrong"):
            succeeds(*arguments)
    assert not (out / "manifest.json").exists()


@pytest.mark.parametrize("text", ["3/3", "-1/3", "1", "1/0", "a/b", "1/3/5", ""])
def test_a_share_that_cannot_be(text: str, images: Path, tmp_path: Path) -> None:
    refused(
        tmp_path, *features(images, tmp_path / "store", f"--shard={text}"), says=("shard=", "I/N")
    )


def test_one_joins_and_the_other_leaves_it_to_that(
    images: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    succeeds(*features(images, out, "--shard", "0/2"))
    with (out / ".joining").open("w") as other:
        machine.lock(other.fileno())
        succeeds(*features(images, out, "--shard", "1/2"))
        assert (out / "shard-0-of-2").exists() and not (out / "manifest.json").exists()
    succeeds(*features(images, out, "--shard", "1/2"))
    assert tree(out) == tree(whole)
