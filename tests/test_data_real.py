"""The real sets, where this machine has them: $SFUMATO_TEST_DATA, or ../shared/data beside the
repository."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sfumato import data
from sfumato.core.errors import DataError

DATA = Path(os.environ.get("SFUMATO_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason="the real data sets are not on this machine"
)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR in the form in which it is distributed, made from the packed one."""
    place = tmp_path_factory.mktemp("unpacked")
    command = [sys.executable, str(DATA / "unpack.py"), "--out", str(place), "--format", "bin"]
    subprocess.run(command, check=True, capture_output=True)
    return place


def check(
    name: str, per_class: tuple[int, int], mean: list[float], std: list[float], place: Path = DATA
) -> data.Splits:
    row = data.published(name)
    splits = data.open(name, data_dir=place, download=False)
    assert data.describe(name, data_dir=place).counts == row.counts
    assert splits.test is not None and splits.train.class_names == row.classes
    for source, each in ((splits.train, per_class[0]), (splits.test, per_class[1])):
        assert len(source) == row.counts[source.split] and source.shape == row.shape
        assert np.bincount(source.labels).tolist() == [each] * len(row.classes)
    # Histograms give exact moments without a float copy of the set.
    pixels = splits.train.raw(np.arange(len(splits.train)))
    values = np.arange(256) / 255
    for channel in range(row.shape[2]):
        share = (
            np.bincount(pixels[..., channel].reshape(-1), minlength=256) / pixels[..., channel].size
        )
        got_mean = share @ values
        assert abs(got_mean - mean[channel]) < 1e-4
        assert abs(np.sqrt(share @ (values - got_mean) ** 2) - std[channel]) < 1e-4
    return splits


def test_fashion_mnist() -> None:
    splits = check("fashion_mnist", (6000, 1000), [0.2860], [0.3530])
    assert splits.test is not None
    assert tuple(splits.test.labels[:10]) == data.published("fashion_mnist").first_test_labels
    # Files of the same names, but another data set.
    with pytest.raises(DataError, match="not found"):
        data.describe("mnist", data_dir=DATA / "fashion-mnist")


@pytest.mark.slow
def test_cifar10(unpacked: Path) -> None:
    mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
    check("cifar10", (5000, 1000), mean, std, unpacked)


@pytest.mark.slow
def test_cifar100(unpacked: Path) -> None:
    mean, std = [0.5047, 0.4886, 0.4382], [0.2669, 0.2559, 0.2753]
    check("cifar100", (500, 100), mean, std, unpacked)
