"""The registry's control flow, inner transformations and rules of one's own; see
`clip_registry.py`."""

import jax
import jax.numpy as jnp
from clip_helpers import B, entropy, random, rows, weights
from jax import lax

PROGRAMS = {}


def entry(make):
    PROGRAMS[make.__name__] = make
    return make


@entry
def views():
    """Four views of an example: averaged, then clipped once."""
    return (
        lambda p, e: jax.vmap(lambda x: entropy(x @ p["w"], e[1]))(e[0]).mean(),
        {"w": random(4, 3)},
        rows(4, 4),
    )


@entry
def scanned():
    """A recurrence: one weight used at every position, under scan and remat."""

    @jax.checkpoint
    def step(w, state, x):
        return jnp.tanh(state @ w + x)

    def loss(p, e):
        last, _ = lax.scan(lambda state, x: (step(p, state, x), None), jnp.zeros(3), e[0])
        return entropy(last, e[1])

    return loss, random(3, 3), rows(3, 7)


@entry
def recurrent():
    """Weights closed over, a learned first state, outputs at every step."""

    def loss(p, e):
        def step(state, x):
            state = jnp.tanh(state @ p["u"] + x @ p["w"] + p["b"])
            return state, state @ p["out"]

        return entropy(lax.scan(step, p["first"], e[0])[1].mean(0), e[1])

    params = dict(
        zip(
            ("u", "w", "b", "first", "out"),
            weights((4, 4), (3, 4), (4,), (4,), (4, 3)),
            strict=True,
        )
    )
    return loss, params, rows(3, 5)


def deep(run):
    """Three residual layers, their parameters stacked."""

    def layer(x, p):
        return x + jnp.tanh(x @ p[0] + p[1])

    def loss(p, e):
        return entropy(run(layer, e[0], p).mean(0)[:3], e[1])

    return loss, weights((3, 4, 4), (3, 4)), rows(4, 3)


@entry
def layers_unrolled():
    def run(layer, x, p):
        for i in range(3):
            x = layer(x, [leaf[i] for leaf in p])
        return x

    return deep(run)


@entry
def layers_scanned():
    return deep(lambda layer, x, p: lax.scan(lambda x, p: (layer(x, p), None), x, p)[0])


@entry
def layers_scanned_backwards_with_checkpoints():
    return deep(
        lambda layer, x, p: lax.scan(
            lambda x, p: (jax.checkpoint(layer)(x, p), None), x, p, reverse=True
        )[0]
    )


@entry
def nested_scans():
    """Stacked layers, each a recurrence whose weight is the outer scan's slice; and a loop that
    closes over the head."""

    def loss(p, e):
        def layer(x, w):
            return lax.scan(lambda state, row: (jnp.tanh(state @ w + row),) * 2, jnp.zeros(3), x)[
                1
            ], None

        hidden = lax.scan(layer, e[0], p[0])[0]
        return entropy(lax.fori_loop(0, 2, lambda _, h: jnp.sin(h @ p[1]), hidden)[-1], e[1])

    return loss, weights((2, 3, 3), (3, 3)), rows(3, 4)


@entry
def branches():
    """The example decides which parameters are used."""

    def loss(p, e):
        hidden = lax.cond(
            e[0].sum() > 0, lambda x: x @ p[0], lambda x: jnp.tanh(x @ p[1]) + p[2], e[0]
        )
        return entropy(
            lax.switch(e[1], [lambda h: h, lambda h: h * p[2], lambda h: h @ p[3]], hidden), e[1]
        )

    return loss, weights((4, 3), (4, 3), (3,), (3, 3)), rows(4)


@entry
def a_rule_that_is_no_derivative():
    """custom_vjp: of a parameter alone (rounded, straight through), of data and parameter, and of a
    product."""

    @jax.custom_vjp
    def rounded(w):
        return jnp.round(4 * w) / 4

    rounded.defvjp(lambda w: (rounded(w), None), lambda _, g: (2 * g,))

    @jax.custom_vjp
    def odd(x, w):
        return x @ w

    odd.defvjp(lambda x, w: (x @ w, (x, w)), lambda xw, g: (-g @ xw[1].T, 3 * xw[0].T @ g[::-1]))
    return (
        lambda p, e: entropy(odd(jnp.tanh(e[0] @ rounded(p[0])), p[1]).mean(0), e[1]),
        weights((4, 5), (5, 3)),
        rows(4, 3),
    )


@entry
def a_tangent_that_is_no_derivative():
    @jax.custom_jvp
    def odd(x, w):
        return jnp.sign(x * w)

    @odd.defjvp
    def _(primals, tangents):
        (x, w), (dx, dw) = primals, tangents
        return odd(x, w), 5 * w * dx - x * dw

    return (
        lambda p, e: entropy(odd(e[0] @ p[0], p[1]) + jax.nn.silu(e[0] @ p[0]), e[1]),
        weights((4, 3), (3,)),
        rows(4),
    )


@entry
def jitted_inside():
    """One inner function, called with data, with a parameter, and with both."""
    twice = jax.jit(lambda a, b: jnp.tanh(a @ b))
    return (
        lambda p, e: entropy(twice(twice(e[0], p[0]), twice(p[0].T, p[1])), e[1]),
        weights((4, 4), (4, 3)),
        rows(4),
    )


@entry
def a_gradient_inside():
    """A penalty on the slope of the network in its input: derivatives of derivatives."""

    def loss(p, e):
        def score(x):
            return jnp.tanh(x @ p[0]) @ p[1]

        return entropy(score(e[0]), e[1]) + jnp.sum(jax.grad(lambda x: score(x).sum())(e[0]) ** 2)

    return loss, weights((4, 5), (5, 3)), rows(4)


@entry
def dropout():
    """The example carries its own random key."""

    def loss(p, e):
        kept = jax.random.bernoulli(e[2], 0.7, (8,))
        return entropy((jnp.tanh(e[0] @ p[0]) * kept) @ p[1], e[1])

    return loss, weights((4, 8), (8, 3)), (*rows(4), jax.random.split(jax.random.key(0), B))
