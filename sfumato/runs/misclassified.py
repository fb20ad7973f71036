"""Evaluation images for the report, only when the user asks to show them."""

import base64
import io
from typing import Any

import numpy as np

from sfumato.data.source import Source
from sfumato.runs.classifier import Classifier


def misclassified(classifier: Classifier, source: Source, count: int = 24) -> list[dict[str, Any]]:
    """The first `count` images that are taken for another class, as PNG in base64, with what they
    are taken for."""
    shown: list[dict[str, Any]] = []
    for start in range(0, len(source), 512):
        indices = np.arange(start, min(start + 512, len(source)))
        images = source.images(indices)
        probabilities = classifier.probabilities(images)
        for image, label, row in zip(images, source.labels[indices], probabilities, strict=True):
            if row.argmax() != label:
                shown.append(
                    {
                        "png_base64": _png(image),
                        "true": source.class_names[label],
                        "predicted": source.class_names[int(row.argmax())],
                        "confidence": float(row.max()),
                    }
                )
            if len(shown) == count:
                return shown
    return shown


def _png(image: np.ndarray) -> str:
    from PIL import Image

    pixels = (np.nan_to_num(image).clip(0, 1) * 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
