"""What a user hands to a model to be classified -> an array: arrays as they are, image files and
Pillow's images, one or a list of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sfumato.core.errors import ArgumentError

if TYPE_CHECKING:
    from sfumato.runs.classifier import Classifier


def arrays(classifier: "Classifier", given: Any) -> Any:
    """What is no file and no image of Pillow's passes as it is. Files and images are brought to the
    model's size and channels. Raises DataError, ArgumentError."""
    if _is_one(given):
        given = [given]
    if not isinstance(given, list | tuple) or not any(map(_is_one, given)):
        return given
    if not all(map(_is_one, given)):
        raise ArgumentError("images", "a list", "give arrays alone, or files and images alone")
    return np.concatenate([_read(classifier, each) for each in given])


def _is_one(given: Any) -> bool:
    return isinstance(given, str | Path) or _is_picture(given)


def _is_picture(given: Any) -> bool:
    """Without importing Pillow: whoever has an image of it has imported it."""
    return any(each.__module__ == "PIL.Image" for each in type(given).__mro__)


def _read(classifier: "Classifier", one: Any) -> Any:
    if _is_picture(one):
        return classifier.fitted(one)
    path = Path(one).expanduser()
    return classifier.table(path) if classifier.on_rows else classifier.read(path)
