"""`sf.load`: whatever was trained and finished -> what answers for it."""

from pathlib import Path

from sfumato.core.errors import RunError, said
from sfumato.core.files import parse_json
from sfumato.core.typed_json import INFINITY
from sfumato.estimators.image_classifier import DPImageClassifier
from sfumato.estimators.linear_classifier import DPLinearClassifier
from sfumato.privacy.not_private import file_name
from sfumato.runs.classifier import MODEL, Classifier

ESTIMATORS = {each.__name__: each for each in (DPImageClassifier, DPLinearClassifier)}


def load(
    path: Path | str, trust: str | None = None
) -> Classifier | DPImageClassifier | DPLinearClassifier:
    """The directory of a finished run (or of its model.json and model.safetensors), model.safetensors
    in it, or the file that an estimator's `save` wrote -> something with `predict`, `predict_proba`
    and `classes_`.

    A run's `Classifier` takes arrays, paths of image files and Pillow's images. trust:
    `package.module:function` of a network from outside. Raises RunError, one line.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return finished(path, trust)
    if not path.is_file():
        raise RunError(f"{path}: no such run or file; `sfumato train --out {path}` makes a run")
    own = path.name in (MODEL, file_name(MODEL, {"epsilon": INFINITY}))
    if own and (path.parent / "model.json").is_file():
        return finished(path.parent, trust)
    kind = ESTIMATORS.get(_kind(path))
    if kind is None:
        raise RunError(
            f"{path}: neither a run's model nor a saved estimator; name a run's directory"
        )
    return kind.load(path)


def finished(directory: Path, trust: str | None = None) -> Classifier:
    """The model of a run that is complete, or of a copy of its model files alone. Raises RunError."""
    if (directory / "plan.json").is_file() and not (directory / "result.json").is_file():
        raise RunError(
            f"{directory}: the run is not complete; `sfumato resume {directory}` finishes it"
        )
    return Classifier.load(directory, trust)


def _kind(path: Path) -> str:
    """What an estimator's file says of itself; its `load` reads it with all checks."""
    from safetensors import safe_open

    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
        return str(parse_json(metadata.get("sfumato", "").partition(" ")[2])["kind"])
    except (KeyError, TypeError):
        return ""
    except Exception as error:  # the library has its own
        raise RunError(f"{path}: damaged, or no model ({said(error)}); restore it") from None
