"""A data set from somebody's own function: `--data package.module:function`."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from sfumato.core import plugins
from sfumato.core.errors import DataError, SfumatoError
from sfumato.data.findings import is_matrix
from sfumato.data.lazy import LazyDataset, positions
from sfumato.data.name_column import NameColumn
from sfumato.data.source import Source, Splits, from_arrays


def find_function(name: str) -> LazyDataset:
    """function() -> `Splits`, a `Source`, or a pair of training and test parts, each a `Source` or
    (images, labels) as `from_arrays` takes them. It is called for a plan, too. Raises ArgumentError,
    DataError."""
    function = plugins.find("data", name)
    with plugins.running("data", name):
        found = _called(function)
    splits = _splits(name, found)
    train, own = splits.train, splits.train.names
    names = positions(len(train)) if own is None else NameColumn.of(own.tolist())
    counts = {
        part: None if found is None else len(found)
        for part, found in (("test", splits.test), ("validation", splits.validation))
    }
    return LazyDataset(
        train.name,
        name,
        train.class_names,
        train.shape,
        names,
        counts["test"],
        lambda: splits,
        n_validation=counts["validation"],
        left_out=splits.left_out,
        named=own is not None,
        task=train.task,
    )


@lru_cache(maxsize=1)
def _called(function: Any) -> Any:
    """What it returns; a plan and its run ask one after the other."""
    return function()


def _splits(name: str, found: Any) -> Splits:
    if isinstance(found, Splits):
        return found
    parts = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    try:
        train = _source(name, parts[0], None, "train")
        test = None if parts[1] is None else _source(name, parts[1], train, "test")
    except (SfumatoError, TypeError, ValueError) as error:
        raise DataError(
            f"data={name!r}: gave no data set ({' '.join(str(error).split())}); return Splits, a Source, or (images, "
            "labels) for training and for testing"
        ) from None
    return Splits(train, None, test)


def _source(name: str, part: Any, train: Source | None, split: str) -> Source:
    if isinstance(part, Source):
        return replace(part, split=split)
    images, labels = part
    name = name.partition(":")[2]
    if train is None:
        return from_arrays(images, labels, None, name, split)
    given = labels if is_matrix(labels) else np.asarray(labels).astype(str)
    return from_arrays(images, given, train.class_names, name, split)
