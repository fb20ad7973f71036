"""Bytes on disk -> `Source`: labels, images, class names. No JAX here."""

from sfumato.data.opening import describe, open
from sfumato.data.registry import Published, names, published
from sfumato.data.source import DataInfo, Source, Splits, from_arrays
from sfumato.data.split import ReadOptions

__all__ = [
    "DataInfo", "Published", "ReadOptions", "Source", "Splits", "describe", "from_arrays", "names", "open", "published",
]
