"""Of a million names and of thousands of probabilities no more is held, and no more asked of the disk, than is needed."""

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfumato.core.errors import DataError
from sfumato.data.name_column import NameColumn
from sfumato.data.records import FileRecords
from sfumato.train import metrics


def test_columns_are_joined_with_their_buffers() -> None:
    parts = [NameColumn.of(["a/é", "", "b"]), NameColumn.of([]), NameColumn.of(["c", "\udcff"])]
    some = NameColumn.of(["x", "y", "z"])[[2, 0]]
    assert NameColumn.joined([*parts, some]) == ["a/é", "", "b", "c", "\udcff", "z", "x"]
    assert NameColumn.joined([]) == [] and NameColumn.of(map(str, range(9000)))[8999] == "8999"
    assert NameColumn.of(["a"]).is_ascii and not parts[0].is_ascii


def test_a_stamp_looks_up_every_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [f"{name}/{k}" for name in ("a", "b/c", "é") for k in range(5)] + ["top"]
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    opened: list[bytes] = []
    own = os.open

    def counted(path: Any, *arguments: Any, **named: Any) -> int:
        opened.append(path)
        return own(path, *arguments, **named)

    monkeypatch.setattr(os, "open", counted)
    found = FileRecords(tmp_path, NameColumn.of(paths))
    first = found.stamp()
    assert len(opened) == 4
    rooted = FileRecords(Path("/other"), NameColumn.of(str(tmp_path / path) for path in paths))
    assert len(rooted.stamp()) == len(first) and rooted.stamp() != first
    (tmp_path / "b/c/3").write_bytes(b"more")
    assert found.stamp() != first
    (tmp_path / "b/c/3").unlink()
    with pytest.raises(DataError, match="b/c/3: can no longer be read"):
        found.stamp()


@pytest.mark.parametrize("classes", [2, 5])
def test_measures_do_not_know_in_how_many_parts_they_were_taken(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = np.random.default_rng(classes)
    scores = stream.normal(0, 3, (301, classes)).astype(np.float32)
    scores[7] = np.nan
    labels = stream.integers(0, classes, 301)
    whole = metrics.of_scores(scores, labels), metrics.measure(metrics.softmax(scores), labels)
    assert whole[0] == whole[1]
    for room in (1, 5000):
        monkeypatch.setattr(metrics, "_AT_ONCE", room)
        assert metrics.of_scores(scores, labels) == whole[0]


@pytest.mark.slow
def test_measures_of_many_classes_take_a_part_of_the_memory_of_their_probabilities(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n, classes = 4000, 100
    scores = np.random.default_rng(0).normal(0, 1, (n, classes)).astype(np.float32)
    labels = np.arange(n) % classes
    metrics.of_scores(scores[:50], labels[:50])  # imports
    monkeypatch.setattr(metrics, "_AT_ONCE", 1 << 17)
    tracemalloc.start()
    metrics.of_scores(scores, labels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n * classes * np.dtype(np.float64).itemsize / 2
