"""What the last bits of a release depend on: versions, devices, the kind of processor, how noise
is drawn. A run is resumed under the same only."""

import importlib.metadata
from typing import Any

from sfumato.core import machine
from sfumato.noise import STREAMS

PACKAGES = ("sfumato", "jax", "jaxlib", "numpy", "optax", "equinox")


def environment(decoder: str | None = None) -> dict[str, str]:
    """Each fact by its name. decoder: what makes pixels of encoded images, where something does."""
    import jax

    # Not how many: no bit of a sum hangs on that (`train/spread.py`).
    kinds = sorted({device.device_kind for device in jax.devices()})
    return {name: importlib.metadata.version(name) for name in PACKAGES} | {
        "devices": ", ".join(kinds),
        "processor": machine.processor(),
        "noise": STREAMS,
        **({} if decoder is None else {"decoder": decoder}),
    }


def differences(began: Any, here: dict[str, str]) -> str:
    """Which facts differ, in words; nothing if none does. began: what a run has recorded (before version
    0.2 a decoder even where nothing was decoded, and `sf.run` none at all). The fingerprint depends on
    the decoder, too."""
    if not isinstance(began, dict):
        return f"it began with {began}, here is {here}"
    return "; ".join(
        f"{name}: it began with {began.get(name)}, here is {here.get(name)}"
        for name in sorted({*began, *here} - ({"decoder"} - ({*began} & {*here})))
        if began.get(name) != here.get(name)
    )
