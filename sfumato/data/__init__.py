"""Bytes on disk -> `Source`: labels, images, class names. No JAX here."""

from sfumato.data.arrays import Arrays, Data
from sfumato.data.opening import describe, find, open
from sfumato.data.published_sets import NamedDataset, names, published
from sfumato.data.rows import describe_rows, find_rows, open_rows
from sfumato.data.source import DataInfo, Source, Splits, from_arrays
from sfumato.data.split import ReadOptions

__all__ = [
    "Arrays",
    "Data",
    "DataInfo",
    "NamedDataset",
    "ReadOptions",
    "Source",
    "Splits",
    "describe",
    "describe_rows",
    "find",
    "find_rows",
    "from_arrays",
    "names",
    "open",
    "open_rows",
    "published",
]
