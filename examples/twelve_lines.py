"""DP-SGD for a loss of one's own: a linear classifier of the bundled digits. `python
examples/twelve_lines.py`; once more, and it says the same without spending anything."""

import jax.numpy as jnp
import numpy as np
import optax

import sfumato as sf

digits = sf.data.open("digits")
images, labels = digits.train[np.arange(len(digits.train))]
test_images, test_labels = digits.test[np.arange(len(digits.test))]


def loss(params, example):  # ONE example; any JAX: Flax, Equinox, Haiku, bare functions
    scores = example["image"].ravel() @ params
    return optax.softmax_cross_entropy_with_integer_labels(scores, example["label"])


data = sf.data.Arrays(image=images, label=labels)
method = sf.DPSGD(
    loss,
    jnp.zeros((64, 10)),
    data,
    optimizer=optax.sgd(2.0),
    sampler=sf.Poisson(batch_size=256, steps=100),
    clip_norm=1.0,
)
method = sf.calibrate(method, epsilon=8.0, delta=1e-4)  # the least noise that keeps the promise
state = sf.run(method, out="runs/mine")  # ledger, checkpoints; the same line again resumes
print(sf.report("runs/mine"), sf.Ledger.read("runs/mine").epsilon())

scores = test_images.reshape(len(test_images), -1) @ state["params"]
print(f"accuracy {100 * np.mean(scores.argmax(1) == test_labels):.1f} %")
