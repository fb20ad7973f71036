"""Eight devices, and one: the same bits. `python examples/eight_devices.py` (a minute; the eight are parts of this
computer's processor, on GPUs leave the second line out).

The seed that fixes the noise is for this comparison alone: it voids the guarantee, and the report says so."""

import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"  # before JAX is imported

import jax
import numpy as np
from safetensors.numpy import load_file

from sfumato.cli import main

asked = {
    "data": "digits",
    "method": "dp-sgd",
    "model": "cnn",
    "epsilon": 8,
    "batch": 512,
    "steps": 12,
    "physical-batch-size": 64,  # the bits hang on this, and on no number of devices
    "insecure-seed": 1,
    "log": "quiet",
}
flags = [part for name, value in asked.items() for part in (f"--{name}", str(value))]
main(["train", *flags, "--out", "runs/eight"])
main(["train", *flags, "--devices", "1", "--out", "runs/one"])
eight, one = (load_file(f"runs/{name}/model.safetensors") for name in ("eight", "one"))
assert all(np.array_equal(eight[name], one[name]) for name in one)
print(f"{len(jax.devices())} devices and one: the same bits in {len(one)} arrays")
