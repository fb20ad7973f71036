"""Pictures of nothing: "dead leaves" images, drawn from a public seed.

Opaque shapes of random size, color and place fall on top of one another. With radii of density r^-3
the picture has the scale invariance and the edge statistics of photographs (Lee, Mumford and Huang
2001); Baradad et al. (2021) train on such pictures in place of photographs. Filters estimated from
them cost no privacy and no download.
"""

import numpy as np
from jaxtyping import Float

from sfumato.core.keys import public_stream


def dead_leaves(
    count: int,
    side: int,
    colors: int,
    seed: int = 0,
    shapes: int = 220,
    radii: tuple[float, float] = (3, 40),
) -> Float[np.ndarray, "count side side colors"]:
    """`count` square pictures with values in [0, 1], drawn at twice the size and averaged down.

    Half of the shapes are ellipses, half rectangles, at random angles, with axis ratios between 1/2
    and 1.
    """
    draw = public_stream(seed, "dead leaves", colors)
    full = 2 * side
    pictures = np.empty((count, full, full, colors), np.float32)
    # Density r^-3 on [a, b]: r^-2 is uniform on [b^-2, a^-2].
    radius = draw.uniform(radii[1] ** -2.0, radii[0] ** -2.0, (count, shapes)) ** -0.5
    squash = draw.uniform(0.5, 1, (count, shapes))
    angle = draw.uniform(0, np.pi, (count, shapes))
    center = draw.uniform(0, full, (count, shapes, 2))
    ellipse = draw.random((count, shapes)) < 0.5
    color = draw.random((count, shapes + 1, colors), np.float32)
    cosine, sine = np.cos(angle), np.sin(angle)
    pixel = np.arange(full) + 0.5
    for i in range(count):
        picture = pictures[i]
        picture[:] = color[i, shapes]
        for j in range(shapes):
            r = radius[i, j]
            y, x = center[i, j]
            # A rectangle's corner is at most sqrt(2) r away.
            reach = r if ellipse[i, j] else 1.42 * r
            top, bottom = max(int(y - reach), 0), min(int(y + reach) + 2, full)
            left, right = max(int(x - reach), 0), min(int(x + reach) + 2, full)
            dy, dx = pixel[top:bottom, None] - y, pixel[None, left:right] - x
            along = (cosine[i, j] * dx + sine[i, j] * dy) / r
            across = (cosine[i, j] * dy - sine[i, j] * dx) / (r * squash[i, j])
            reach = (
                along * along + across * across
                if ellipse[i, j]
                else np.maximum(np.abs(along), np.abs(across))
            )
            inside = reach < 1
            picture[top:bottom, left:right][inside] = color[i, j]
    return pictures.reshape(count, side, 2, side, 2, colors).mean((2, 4))
