"""A run that is killed goes on from its last checkpoint, to the bits of the run that nobody killed. `python
examples/resume.py` (some seconds).

The seed that fixes the noise is for this comparison alone: it voids the guarantee, and the report says so."""

import jax.numpy as jnp
import numpy as np
import optax

import sfumato as sf

digits = sf.data.open("digits")
images, labels = digits.train[np.arange(len(digits.train))]


def loss(params, example):
    scores = example["image"].ravel() @ params
    return optax.softmax_cross_entropy_with_integer_labels(scores, example["label"])


def method():
    made = sf.DPSGD(
        loss,
        jnp.zeros((64, 10)),
        sf.data.Arrays(image=images, label=labels),
        optimizer=optax.sgd(2.0),
        sampler=sf.Poisson(batch_size=256, steps=40),
        clip_norm=1.0,
    )
    return sf.calibrate(made, epsilon=8.0, delta=1e-4)


class PowerCut(Exception):
    """What no program expects."""


def cut(params):
    """Called at ten points of a run; the sixth time the lights go out."""
    cut.calls += 1
    if cut.calls == 6:
        raise PowerCut
    return {"norm": float(jnp.linalg.norm(params))}


cut.calls = 0
settings = {"insecure_seed": 1, "checkpoint_seconds": 1e-6, "log": "quiet"}
try:
    sf.run(method(), out="runs/cut", evaluate=cut, **settings)
except PowerCut:
    print("stopped; the ledger holds", sf.Ledger.read("runs/cut").releases, "releases")
resumed = sf.run(method(), out="runs/cut", evaluate=cut, **settings)
whole = sf.run(method(), out="runs/whole", **settings)
assert np.array_equal(resumed["params"], whole["params"])
print("the same bits;", sf.Ledger.read("runs/cut").releases, "releases, none paid for twice")
