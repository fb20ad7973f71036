"""How large and how dear a network of the catalog is, by abstract evaluation: no weight is drawn."""

from sfumato.networks.architecture import Architecture
from sfumato.networks.image_cost import forward_cost, outline, parameters
from sfumato.networks.listed import CLASSES, SMALL_CLASSES, SMALL_SHAPE, Listed


def describe(architecture: Architecture) -> Listed:
    """A line of the list."""
    given = architecture.input
    shape, classes = given.shape(SMALL_SHAPE), SMALL_CLASSES if given.size is None else CLASSES
    network = outline(architecture, shape, classes)
    return Listed(
        architecture.name,
        architecture.family,
        parameters(network),
        forward_cost(network, shape),
        network.size,
        network.depth,
        shape,
        given.size is None,
        classes,
        given.mean,
        given.std,
        given.interpolation,
        architecture.weights,
    )
