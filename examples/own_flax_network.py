"""A network of Flax, as it is: DP-SGD takes any loss of ONE example. `python examples/own_flax_network.py`
(about twenty seconds on two cores; needs flax)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import sfumato as sf


class Network(nn.Module):
    """Of one image. GroupNorm, not BatchNorm: nothing may mix the images of a batch."""

    @nn.compact
    def __call__(self, image):
        maps = nn.Conv(16, (3, 3), strides=2)(image)
        maps = nn.tanh(nn.GroupNorm(num_groups=4)(maps))
        return nn.Dense(10)(maps.ravel())


digits = sf.data.open("digits")
images, labels = digits.train[np.arange(len(digits.train))]
test_images, test_labels = digits.test[np.arange(len(digits.test))]

network = Network()
params = network.init(jax.random.key(0), jnp.asarray(images[0]))


def loss(params, example):
    scores = network.apply(params, example["image"])
    return optax.softmax_cross_entropy_with_integer_labels(scores, example["label"])


def accuracy(state):
    scores = jax.vmap(lambda image: network.apply(state, image))(jnp.asarray(test_images))
    return float(np.mean(np.argmax(scores, 1) == test_labels))


method = sf.DPSGD(
    loss,
    params,
    sf.data.Arrays(image=images, label=labels),
    optimizer=optax.sgd(2.0),
    sampler=sf.Poisson(batch_size=256, steps=60),
    clip_norm=0.5,
)
method = sf.calibrate(method, epsilon=8.0, delta=1e-4)

state = sf.run(method, out="runs/flax", evaluate=accuracy)  # a curve in the report
print(f"accuracy {100 * accuracy(state['params']):.1f} %", sf.report("runs/flax"))
