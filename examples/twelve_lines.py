"""DP-SGD from its parts: a linear classifier of the bundled digits. `python
examples/twelve_lines.py`"""

import tempfile

import jax.numpy as jnp
import numpy as np
import optax

import sfumato


def loss(params, example):  # ONE example
    image, label = example
    return optax.softmax_cross_entropy_with_integer_labels(image.ravel() @ params, label)


# --- twelve lines
splits = sfumato.data.open("digits")
source, test = splits.train, splits.test
sampler = sfumato.Poisson(rate=256 / len(source), steps=100, n=len(source))
tally = lambda sigma: {sampler.event(sfumato.GaussianEvent(sigma)): sampler.steps}  # noqa: E731
noise = sfumato.Gaussian(sfumato.noise_multiplier(tally, target_epsilon=8.0, delta=1e-4))
grad = sfumato.clipped_grad(loss, clip_norm=1.0)  # per-example clipping of any JAX loss
ledger = sfumato.Ledger.create(tempfile.mkdtemp(), delta=1e-4, epsilon_max=8.0)
fetch = lambda indices, step: (source.images(indices), source.labels[indices])  # noqa: E731
procedure = sfumato.DPSGD(jnp.zeros((64, 10)), grad, sampler, noise, optax.sgd(2.0), fetch)
state = sfumato.run(
    procedure, ledger, sfumato.SecretKey.from_entropy()
)  # pay, measure, add noise, absorb; 100 times
scores = test.images(np.arange(len(test))).reshape(len(test), -1) @ state["params"]
accuracy = np.mean(scores.argmax(1) == test.labels)
print(f"accuracy {100 * accuracy:.1f} %, epsilon {ledger.epsilon():.3f}, delta {ledger.delta:g}")
