"""A network from outside: a multilayer perceptron that knows nothing of sfumato."""

import equinox as eqx


class Perceptron(eqx.Module):
    layers: eqx.nn.MLP

    def __call__(self, image):
        return self.layers(image.ravel())


def perceptron(shape, classes, key):
    height, width, channels = shape
    return Perceptron(eqx.nn.MLP(height * width * channels, classes, 16, 1, key=key))


def wrong(shape, classes, key):
    """Gives one score too many."""
    return perceptron(shape, classes + 1, key)
