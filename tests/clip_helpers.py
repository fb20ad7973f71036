"""What the tests of clipping share: random numbers, the slow loop that every method must equal, and
the law of influence."""

import operator

import jax
import jax.numpy as jnp
import numpy as np

from sfumato.clip.materialize import SLACK

B = 5
ROUNDING = 1 + 1e-6
BAD = [np.nan, np.inf, -np.inf, 1e30, -1e30, 1e-30, 1e19, 3e38]
"""What may stand in a broken example: no number, or one whose square overflows or underflows."""


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def classes(n=B, c=3):
    return (np.arange(n) % c).astype(np.int32)


def rows(width, *before):
    """Examples of one row each (or of an array of rows), with a class."""
    return random(B, *before, width, seed=9), classes()


def weights(*shapes):
    return [random(*shape, seed=10 + i) / 2 for i, shape in enumerate(shapes)]


def entropy(scores, label):
    """Cross-entropy, written so that it compiles quickly: the tests compile it hundreds of times."""
    shifted = scores - jax.lax.stop_gradient(scores.max())
    return jnp.log(jnp.exp(shifted).sum()) - jnp.sum(shifted * (jnp.arange(scores.size) == label))


def everyone(n=B):
    return jnp.ones(n, bool)


def alone(i, n=B):
    return jnp.arange(n) == i


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)])


def norm(tree):
    return float(np.linalg.norm(flat(tree)))


def is_float(leaf):
    return jnp.issubdtype(leaf.dtype, jnp.floating)


def on_floats(change, tree):
    """`change` applied to the leaves of floating-point numbers, which a gradient may reach."""
    return jax.tree.map(lambda leaf: change(leaf) if is_float(leaf) else leaf, tree)


def spoiled(batch, bad):
    """One number of example 1 and all numbers of example 3 replaced."""

    def changed(leaf):
        leaf = np.array(leaf)
        leaf[(1, *(0,) * (leaf.ndim - 1))] = leaf[3] = bad
        return jnp.asarray(leaf)

    return on_floats(changed, batch)


# -- the slow loop


def gradients(loss, params, batch, count=B):
    """One example at a time, in float64 once differentiated: what every method must equal."""
    one = jax.jit(jax.grad(loss))
    examples = [jax.tree.map(operator.itemgetter(i), batch) for i in range(count)]
    return np.stack([flat(one(params, example)) for example in examples])


def slow_factors(norms, clip_norm, clipping="hard"):
    """Hard: C / max(C, |g|), Abadi et al. 2016. Automatic: C / (|g| + 0.01), Bu et al. 2023,
    AUTO-S."""
    if clipping == "automatic":
        return clip_norm / (norms + 0.01)
    return clip_norm / np.maximum(norms * (1 + SLACK), clip_norm)


def slow_sum(each, mask, clip_norm, clipping="hard"):
    """`each`: one gradient per row."""
    return (
        np.asarray(mask) * slow_factors(np.linalg.norm(each, axis=1), clip_norm, clipping)
    ) @ each


def assert_close(got, wanted, tolerance):
    """Relative to the largest number of the whole sum: rounding in one leaf is of the size of all
    that was added."""
    np.testing.assert_allclose(
        got, wanted, rtol=0, atol=tolerance * max(np.abs(wanted).max(), 1e-30)
    )


# -- influence


def absent(batch, gone):
    """The batch of a data set that lacks some examples: their places are padding. A mask alone
    would leave what they hold."""

    def emptied(leaf):
        leaf = np.array(leaf)
        leaf[np.asarray(gone)] = 0
        return jnp.asarray(leaf)

    return on_floats(emptied, batch)


def neighbors(batch, count=B):
    """What to ask of a sum, (batch, mask) each: the whole; then for every example the rest, and it
    alone."""
    asked = [(batch, everyone(count))]
    for i in range(count):
        for mask in (np.arange(count) != i, np.arange(count) == i):
            asked.append((absent(batch, ~mask), jnp.asarray(mask)))
    return asked


def bounded(rows, sensitivity):
    """rows: the answers to `neighbors`. Adding or removing any one example moves the sum by at most
    the sensitivity, and the sum stays finite.

    Returns the largest contribution.
    """
    whole, largest = rows[0], 0.0
    assert np.isfinite(whole).all()
    for i, (without, own) in enumerate(zip(rows[1::2], rows[2::2], strict=True)):
        own = np.linalg.norm(own)
        assert own <= sensitivity, f"example {i} contributes {own}"
        moved = np.linalg.norm(whole - without)
        assert moved <= sensitivity * (1 + 1e-5) + 1e-5 * np.abs(whole).max(), (
            f"example {i} moves the sum by {moved}"
        )
        largest = max(largest, own)
    return largest


def check_influence(clipped, params, batch, sensitivity, count=B):
    """`bounded`, for a callable `(params, batch, mask)`."""
    rows = [flat(clipped(params, *asked).value) for asked in neighbors(batch, count)]
    return bounded(rows, sensitivity)
