"""A fitted estimator as one file: safetensors, with all that is not an array as JSON in its
metadata. No pickle.

The metadata have one entry, "sfumato": a hash of facts and arrays, which tells a damaged file from
a whole one, a space, and the facts. One file, written aside and renamed, so there is never a half
of one. Of an open ledger nothing is written: whoever loads the estimator and fits again gives it
the ledger to pay from.
"""

import json
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
from jaxtyping import Shaped
from sklearn.utils.validation import check_is_fitted

from sfumato.core import typed_json
from sfumato.core.checks import in_folder
from sfumato.core.digests import digest_of
from sfumato.core.errors import ArgumentError, RunError
from sfumato.core.files import parse_json, write_atomic
from sfumato.privacy import fields
from sfumato.privacy.not_private import MARK, file_name, told

_FORMAT = 1
_FILE = "estimator.safetensors"
"""What the table of fields calls such a file, whatever its name."""

Arrays = dict[str, np.ndarray]
T = TypeVar("T", bound="Saveable")


class Saveable:
    """`save` and `load` of an estimator that says what it has learned as facts (JSON) and arrays."""

    _saved_as: ClassVar[str]

    def _learned(self) -> tuple[dict[str, Any], Arrays]:
        """Facts and arrays beyond the arguments of the constructor and `classes_`, `epsilon_`."""
        raise NotImplementedError

    def _relearn(self, facts: Mapping[str, Any], arrays: Arrays, where: Path) -> None:
        """The inverse of `_learned`; may raise anything for a damaged file. where: for messages."""
        raise NotImplementedError

    def save(self, path: Path | str) -> None:
        """Write the fitted estimator to a file that `load` reads; a file that is there is replaced,
        all at once. `public` rows go with it, an open `ledger` does not.

        Raises NotFittedError; ArgumentError for a place where no file can be.
        """
        check_is_fitted(self, "classes_")
        path = _place(path)
        facts, arrays = self._learned()
        params = dict(self.get_params(deep=False), ledger=None)  # type: ignore[attr-defined]
        if params.get("public") is not None:
            arrays, params["public"] = {**arrays, "public": np.asarray(params["public"])}, True
        if isinstance(params.get("class_weight"), dict):  # JSON has no names that are numbers
            params["class_weight"] = [
                [name, weight] for name, weight in params["class_weight"].items()
            ]
        spent: float = self.epsilon_  # type: ignore[attr-defined]
        if spent == math.inf and "not-private" not in path.name:
            raise ArgumentError(
                "path",
                str(path),
                f"this model is {MARK}, and its file must say so: give a name with not-private in it, such as "
                f"{file_name(path.name, {'epsilon': spent})}",
            )
        own = {
            "format": _FORMAT,
            "kind": self._saved_as,
            "params": params | {"epsilon": typed_json.plain(params["epsilon"])},
            "classes": _listed(self.classes_),  # type: ignore[attr-defined]
            "epsilon": typed_json.plain(spent),
            **facts,
        }
        _write(path, own, arrays)

    @classmethod
    def load(cls: type[T], path: Path | str) -> T:
        """The estimator that `save` wrote, with `ledger=None`.

        Raises RunError for a file that is missing, damaged, no saved estimator or that of another
        class.
        """
        path = Path(path).expanduser()
        facts, arrays = _read(path, cls._saved_as)
        try:
            params = dict(facts["params"])
            if params.get("public"):
                params["public"] = arrays["public"]
            if isinstance(params.get("class_weight"), list):
                params["class_weight"] = dict(map(tuple, params["class_weight"]))
            params["epsilon"] = typed_json.or_infinite(params["epsilon"])
            made = cls(**params)
            made.classes_, made.epsilon_ = _array(facts["classes"]), float(facts["epsilon"])  # type: ignore[attr-defined]
            made._relearn(facts, arrays, path)
        except RunError:
            raise
        except Exception as error:  # what cannot be built fails in many ways
            raise _damaged(path, error) from None
        if (not_private := told(made.epsilon_)) is not None:  # type: ignore[attr-defined]
            warnings.warn(not_private.words, stacklevel=2)
        return made


def _place(path: Path | str) -> Path:
    path = Path(path).expanduser()
    if path.is_dir():
        raise ArgumentError(
            "path",
            str(path),
            "this is a folder; give the name of a file, such as model.safetensors",
        )
    in_folder("path", path)
    return path


def _write(path: Path, facts: dict[str, Any], arrays: Arrays) -> None:
    from safetensors.numpy import save

    text = json.dumps(facts, default=_plain)
    fields.check(_FILE, parse_json(text))
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_atomic(path, save(arrays, {"sfumato": f"{_digest(text, arrays)} {text}"}))


def _read(path: Path, kind: str) -> tuple[dict[str, Any], Arrays]:
    from safetensors import safe_open

    if not path.is_file():
        is_run = (path / "model.json").is_file()
        problem = (
            "this is a run; sfumato.Classifier.load reads it"
            if is_run
            else "a folder, not a saved estimator"
            if path.is_dir()
            else "no such file"
        )
        raise RunError(f"{path}: {problem}")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            if "sfumato" not in metadata:
                raise RunError(f"{path}: not a saved estimator; {kind}.save writes one")
            digest, _, text = metadata["sfumato"].partition(" ")
            facts = parse_json(text)
            if facts["kind"] != kind:
                raise RunError(
                    f"{path}: holds a {facts['kind']}; load it with {facts['kind']}.load"
                )
            if facts["format"] != _FORMAT:
                raise RunError(
                    f"{path}: written by another version of sfumato (format {facts['format']}); load it there"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    except RunError:
        raise
    except Exception as error:  # the library has its own, and so has JSON
        raise _damaged(path, error) from None
    if digest != _digest(text, arrays):
        raise RunError(
            f"{path}: damaged (its content is not what was saved); restore it or save it again"
        )
    return facts, arrays


def _damaged(path: Path, error: Exception) -> RunError:
    said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return RunError(f"{path}: damaged, or no saved estimator ({said}); restore it or save it again")


def _digest(text: str, arrays: Arrays) -> str:
    return digest_of(arrays, first=text, mark="\n")


def _plain(value: Any) -> Any:
    """What JSON does not know, such as NumPy's numbers."""
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__iter__") and not isinstance(value, Mapping):
        return np.asarray(value).tolist()
    raise ArgumentError("params", value, "cannot be saved; give numbers, text or lists of them")


def _listed(values: Shaped[np.ndarray, " c"]) -> dict[str, Any]:
    return {
        "type": "str" if values.dtype.kind == "U" else values.dtype.name,
        "values": values.tolist(),
    }


def _array(listed: Mapping[str, Any]) -> Shaped[np.ndarray, " c"]:
    dtype = np.dtype(listed["type"])
    if dtype.kind not in "biufU" or not isinstance(listed["values"], list) or not listed["values"]:
        raise ValueError(f"classes of type {dtype}")
    return np.array(listed["values"], dtype)
