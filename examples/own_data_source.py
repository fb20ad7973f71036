"""Images that are made, or read, when they are needed: anything with a length that is indexed by a vector
of integers. `python examples/own_data_source.py` (some seconds)."""

import jax.numpy as jnp
import numpy as np
import optax

import sfumato as sf


class Rings:
    """Disks and rings of secret places and sizes. A real source would read files here; the training loop asks
    for a step's examples in a thread of its own, while the step before it is computed."""

    def __init__(self, n, seed):
        stream = np.random.default_rng(seed)
        self.label = stream.integers(0, 2, n).astype(np.int32)
        self.place = stream.uniform(5, 11, (n, 2))
        self.radius = stream.uniform(3, 5, n)

    def __len__(self):
        return len(self.label)

    def __getitem__(self, indices):
        """A tree of arrays, examples in front."""
        y, x = np.mgrid[:16, :16]
        at = self.place[indices, :, None, None]
        distance = np.hypot(y - at[:, 0], x - at[:, 1])
        radius, label = self.radius[indices], self.label[indices]
        inside = distance < radius[:, None, None]
        hole = distance < 0.5 * radius[:, None, None]
        image = inside & ~(hole & (label == 1)[:, None, None])
        return {"image": image.astype(np.float32), "label": label}


def loss(params, example):
    hidden = jnp.tanh(example["image"].ravel() @ params["first"])
    return optax.softmax_cross_entropy_with_integer_labels(
        hidden @ params["second"], example["label"]
    )


stream = np.random.default_rng(0)  # public: where the parameters begin
params = {
    "first": jnp.asarray(stream.normal(0, 0.1, (256, 32)), jnp.float32),
    "second": jnp.zeros((32, 2)),
}
method = sf.DPSGD(
    loss,
    params,
    Rings(4_000, seed=1),
    optimizer=optax.sgd(1.0, momentum=0.9),
    sampler=sf.Poisson(batch_size=500, steps=80),
    clip_norm=0.5,
)
method = sf.calibrate(method, epsilon=3.0, delta=1e-5)
state = sf.run(method, out="runs/rings")

test = Rings(1_000, seed=2)[np.arange(1_000)]
hidden = np.tanh(test["image"].reshape(1_000, -1) @ state["params"]["first"])
right = np.mean((hidden @ state["params"]["second"]).argmax(1) == test["label"])
print(f"accuracy {100 * right:.1f} %, epsilon {sf.Ledger.read('runs/rings').epsilon():.3f}")
