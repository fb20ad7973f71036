"""`sfumato export`: a finished model as ONNX, as StableHLO of `jax.export`, or as a directory for the
Hugging Face hub.

Preprocessing. The exported program takes images of the model's shape, floats from 0 to 1, and gives
probabilities; what the network does to them itself (its own size, mean and deviation) is inside, and
so is a stored temperature. Outside is what comes before: decode, make it upright and opaque, resize
the shorter side with Pillow's bicubic, cut out the center square, divide by 255. config.json says so.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sfumato import __version__
from sfumato.core import extras, typed_json
from sfumato.core.errors import ArgumentError, RunError, said
from sfumato.core.files import make_directory, read_json, write_atomic
from sfumato.core.keys import public_stream
from sfumato.privacy import fields
from sfumato.privacy.not_private import file_name
from sfumato.report.facts import RunFacts
from sfumato.report.hub_card import hub_card
from sfumato.runs.classifier import MODEL, Classifier
from sfumato.runs.temperature import FILE as CALIBRATION
from sfumato.serving.loading import finished

TOLERANCE = 1e-4
"""Of probabilities, between ours and those of another runtime."""
MOST_BYTES = 2**31 - 2**20
"""Of an ONNX file or of an exported program: both formats end at 2 GiB."""


@dataclass(frozen=True)
class Exported:
    """What was written, and a sentence about how it was checked."""

    path: Path
    checked: str


def export(run: Path, to: str, out: Path | None, push: str | None = None) -> Exported:
    """Write `out` (a directory that must not exist) [RUN/export-TO]. Raises ArgumentError, RunError."""
    if to not in TARGETS:
        raise ArgumentError("to", to, f"choose one of {', '.join(TARGETS)}")
    if push is not None and to != "card":
        raise ArgumentError("push", push, "is for --to card")
    if push is not None:
        extras.need("hub", "push", push)
    classifier = finished(run)
    out = out.expanduser() if out is not None else run / file_name(f"export-{to}", _privacy(run))
    if out.exists():
        raise ArgumentError("out", str(out), "exists already; choose another --out, or remove it")
    files, checked = TARGETS[to](run, classifier)
    files["config.json"] = _json(config(run, classifier))
    make_directory(out)
    for name, content in files.items():
        write_atomic(out / name, content)
    if push is not None:
        checked = f"pushed to {_pushed(out, push)}"
    return Exported(out, checked)


def _privacy(run: Path) -> dict[str, Any]:
    """The statement of model.json, in numbers."""
    found: dict[str, Any] = read_json(run / "model.json").get("privacy", {})
    return found


def program(classifier: Classifier) -> Any:
    """Images (b x h x w x c, float32 in [0, 1]) -> probabilities (b x classes), a stored temperature
    included."""
    model: Any = classifier.model
    own = classifier.calibration
    temperature = 1.0 if own is None else own.temperature

    def probabilities(images: Any) -> Any:
        scores = jax.vmap(lambda one: model(one))(images)
        return classifier.spec.task.chances(scores / jnp.float32(temperature))

    return probabilities


def config(run: Path, classifier: Classifier) -> dict[str, Any]:
    """config.json: classes, what comes before the model, the privacy statement in numbers."""
    height, width, colors = classifier.spec.shape
    found = {
        "architectures": ["sfumato.Classifier"],
        "model_type": "sfumato",
        "sfumato_model": classifier.spec.model,
        "sfumato_version": __version__,
        "num_labels": len(classifier.spec.classes),
        "id2label": {str(k): name for k, name in enumerate(classifier.spec.classes)},
        "label2id": {name: k for k, name in enumerate(classifier.spec.classes)},
        "input": {
            "name": "images",
            "layout": "NHWC",
            "dtype": "float32",
            "height": height,
            "width": width,
            "channels": colors,
            "range": [0, 1],
            "preprocessing": "none: rows of features"
            if classifier.on_rows
            else "upright and opaque; shorter side resized to the model's (Pillow, bicubic); center square; divided by 255",
        },
        "privacy": _privacy(run),
    }
    if not classifier.spec.task.exclusive:
        found["problem_type"] = "multi_label_classification"
    if classifier.calibration is not None:
        found["calibration"] = typed_json.plain(classifier.calibration)
    fields.check("exported config.json", found)
    return found


Files = dict[str, bytes | str]


def _json(value: Any) -> str:
    import json

    return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def to_jax(run: Path, classifier: Classifier) -> tuple[Files, str]:
    """model.stablehlo for CPU, CUDA and TPU, any batch; it is read back and asked."""
    from jax import export as jax_export

    (batch,) = jax_export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *classifier.spec.shape), jnp.float32)
    made = jax_export.export(jax.jit(program(classifier)), platforms=("cpu", "cuda", "tpu"))(images)
    try:
        content = bytes(made.serialize())
    except Exception as error:  # the format's own limit
        raise RunError(
            f"{run}: cannot be serialized ({said(error)}); --to card has it all"
        ) from None
    again = jax_export.deserialize(bytearray(content))
    worst = _worst(classifier, lambda x: np.asarray(again.call(jnp.asarray(x))))
    name = file_name("model.stablehlo", _privacy(run))
    told = (
        "import jax, jax.numpy as jnp\n"
        f'model = jax.export.deserialize(bytearray(open("{name}", "rb").read()))\n'
        "probabilities = model.call(jnp.asarray(images, jnp.float32))  # images: see config.json\n"
    )
    return {name: content, "call.py": told}, _checked("jax.export", worst)


def to_onnx(run: Path, classifier: Classifier) -> tuple[Files, str]:
    """model.onnx, asked by onnxruntime."""
    extras.need("onnx", "to", "onnx")
    from onnxruntime import InferenceSession

    from sfumato.serving.onnx_graph import model
    from sfumato.serving.onnx_rules import RULES

    about = {
        "classes": _json(list(classifier.spec.classes)).strip(),
        "privacy": _json(_privacy(run)).strip(),
        "input": "images: batch x height x width x channels, float32 from 0 to 1; see config.json",
    }
    made = model(program(classifier), classifier.spec.shape, RULES, **about)
    if made.ByteSize() > MOST_BYTES:
        raise ArgumentError("to", "onnx", "the model has more than 2 GiB; give --to card")
    content = made.SerializeToString()
    session = InferenceSession(content, providers=["CPUExecutionProvider"])
    worst = _worst(classifier, lambda x: session.run(None, {"images": x})[0])
    return {file_name("model.onnx", _privacy(run)): content}, _checked("onnxruntime", worst)


def _worst(classifier: Classifier, answer: Any) -> float:
    """The largest difference of probabilities on public noise, one image and several."""
    gap = 0.0
    for n in (1, 3):
        images = public_stream(n, "export").random((n, *classifier.spec.shape), np.float32)
        gap = max(gap, float(np.abs(answer(images) - classifier.probabilities(images)).max()))
    if not gap <= TOLERANCE:
        raise RunError(
            f"the exported program answers otherwise than the model, by {gap:.2g}; nothing was written"
        )
    return gap


def _checked(runtime: str, worst: float) -> str:
    return f"checked by {runtime}: probabilities differ by {worst:.1g} at most"


def to_card(run: Path, classifier: Classifier) -> tuple[Files, str]:
    """README.md (the card, the privacy statement also as metadata) and the model's own files."""
    if not (run / "plan.json").is_file():
        raise RunError(f"{run}: a card needs the run's directory; export where it was trained")
    files: Files = {"README.md": hub_card(RunFacts.load(run))}
    for name in ("model.json", file_name(MODEL, _privacy(run)), CALIBRATION):
        if (run / name).is_file():
            files[name] = (run / name).read_bytes()
    return files, "sf.load(directory) reads it"


TARGETS = {"onnx": to_onnx, "jax": to_jax, "card": to_card}
"""--to -> what writes it."""


def _pushed(folder: Path, name: str) -> str:
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        made = api.create_repo(name, exist_ok=True, private=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=str(folder))
    except Exception as error:  # the hub's client has many kinds
        raise RunError(f"push={name!r}: {said(error)}; log in with `hf auth login`") from None
    return f"{made.repo_id} (private; change that on its page)"
