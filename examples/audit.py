"""Attack a method of one's own: what a white-box attacker finds, beside what is claimed. `python
examples/audit.py` (some seconds)."""

import jax.numpy as jnp
import numpy as np
import optax

import sfumato as sf

digits = sf.data.open("digits")
images, labels = digits.train[np.arange(len(digits.train))]


def loss(params, example):
    scores = example["image"].ravel() @ params
    return optax.softmax_cross_entropy_with_integer_labels(scores, example["label"])


method = sf.DPSGD(
    loss,
    jnp.zeros((64, 10)),
    sf.data.Arrays(image=images, label=labels),
    optimizer=optax.sgd(2.0),
    sampler=sf.FullBatch(steps=10),
    clip_norm=1.0,
)
method = sf.calibrate(method, epsilon=4.0, delta=1e-5)
sf.run(method, out="runs/audited")

# Canaries are examples with a gradient of norm C along one parameter each; half of them take part.
record = sf.attack("runs/audited", method, size=400)
for each in record.results:
    print(
        f"{each.method}: epsilon is at least {each.lower_bound:.2f} of {each.epsilon:.2f} claimed"
    )
print(
    "A bound above the claim is a bug, or the one audit in twenty: repeat it before believing it."
)
