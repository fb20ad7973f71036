"""`sfumato export`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from sfumato.cli.trust import Trust


@dataclass(frozen=True)
class Export:
    """Write a finished run's model for others: ONNX, a program of jax.export, or a Hugging Face
    directory with a model card."""

    run: tyro.conf.Positional[Path]
    """The run's directory; for onnx and jax a copy of its model.json and model.safetensors will do."""
    to: Literal["onnx", "jax", "card"]
    """onnx (needs sfumato[onnx]; checked by onnxruntime) | jax (StableHLO, any batch) | card."""
    out: Path | None = None
    """Directory to create [RUN/export-TO]."""
    push: str | None = None
    """--to card: also upload to this repository of the hub, private at first (needs sfumato[hub])."""
    trust: Trust = ()

    def __call__(self) -> None:
        from sfumato.serving.exporting import export

        found = export(self.run, self.to, self.out, self.push)
        print(f"exported  {found.path} ({found.checked})")
