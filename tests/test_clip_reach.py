"""A pullback walks what its own leaves need, and finds what the whole walk finds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sfumato.clip import chain, clipped_grad
from sfumato.clip.chain import find_meetings, weights_of
from sfumato.clip.handling import handle
from sfumato.clip.trace import trace_loss
from sfumato.networks.layers.standardization import standardize

RNG = np.random.default_rng(0)


def network(depth):
    """Of standardized convolutions, with constants that are computed in front of the weights, in calls and out
    of them; a weight of two leaves; a scan over a stack; a leaf that meets data twice."""
    make = lambda *shape: jnp.asarray(RNG.standard_normal(shape), jnp.float32)  # noqa: E731
    params = {f"c{k}": (make(3, 3, 2, 2), make(2)) for k in range(depth)}
    params |= {"two": (make(2, 3), make(2, 3)), "stack": make(3, 2, 2), "twice": make(2, 2)}

    @jax.jit
    def beside(x):
        return x * 2, jnp.arange(1.0, 4.0) / 3

    def loss(params, x):
        for k in range(depth):
            kernel, gain = params[f"c{k}"]
            weight = standardize(kernel, gain) * (jnp.ones(2) * 0.5)
            x = jnp.tanh(
                jax.lax.conv_general_dilated(
                    x[None], weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
                )[0]
            )
        x, third = beside(x)
        y = x.mean((0, 1))
        y = jax.lax.scan(lambda y, w: (jnp.tanh(y @ w), None), y, params["stack"])[0]
        y = jnp.tanh(y @ params["twice"]) @ params["twice"].T
        a, b = params["two"]
        return jnp.sum(jnp.square(y @ ((a + jnp.exp(b)) * third)))

    return loss, params


def test_weights_of_some_leaves_are_those_of_the_whole_walk():
    loss, params = network(2)
    leaves = jax.tree.leaves(params)
    handling = handle(trace_loss(loss, params, jnp.zeros((4, 4, 2))))
    whole = find_meetings(handling.trace, leaves).weights
    assert any(len(part.leaves) > 1 for part in handling.parts)
    for part in handling.parts:
        given = {leaf: leaves[leaf] for leaf in part.leaves}
        own = weights_of(handling.trace, handling.reads, given)
        assert own.keys() >= set(part.sites)
        for path in part.sites:
            assert np.array_equal(own[path], whole[path])


@pytest.mark.parametrize("method", ["book_keeping", "two_pass"])
def test_sums_are_those_of_the_slow_twin(method):
    loss, params = network(2)
    batch = jnp.asarray(RNG.standard_normal((3, 4, 4, 2)), jnp.float32)
    sums = [
        clipped_grad(loss, 0.1, method=each)(params, batch, jnp.ones(3, bool)).value
        for each in (method, "materialize")
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *sums)


@pytest.mark.slow
def test_a_trace_takes_time_in_proportion_to_the_layers(monkeypatch):
    """Counted in equations of the loss that are evaluated or met."""
    seen = []
    for name in ("_evaluate", "_meet"):
        whole = getattr(chain, name)
        counting = lambda *args, f=whole, **named: (seen.append(1), f(*args, **named))[1]  # noqa: E731
        monkeypatch.setattr(chain, name, counting)

    def walked(depth):
        loss, params = network(depth)
        seen.clear()
        batch, mask = jnp.zeros((2, 4, 4, 2)), jnp.ones(2, bool)
        jax.make_jaxpr(lambda *args: clipped_grad(loss, 1.0)(*args).value)(params, batch, mask)
        return len(seen)

    few, some, more = walked(1), walked(4), walked(7)
    assert more - some <= 1.1 * (some - few), "a layer costs more beside more layers"
