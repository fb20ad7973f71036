"""Negative controls: engines with one planted error each. A law that lets them pass proves nothing."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from clip_helpers import check_influence
from clip_laws import (
    answered,
    case,
    law_of_absurd_examples,
    law_of_influence,
    law_of_the_mask,
    law_of_the_slow_loop,
)
from clip_registry import built

from sfumato.clip.materialize import SLACK


def planted(bug, loss, clip_norm=1.0):
    """The slow twin, but for the bug."""

    def clipped(params, batch, mask):
        if bug == "parameters are rounded":
            params = jax.tree.map(
                lambda leaf: leaf.astype(jnp.bfloat16).astype(jnp.float32), params
            )
        if bug == "examples are centered":
            batch = (jax.tree.map(lambda x: x - x.mean(0) if x.ndim > 1 else x, batch[0]), batch[1])
        each = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
        leaves, treedef = jax.tree.flatten(each)
        rows = [leaf.reshape(leaf.shape[0], -1) for leaf in leaves]
        squares = jnp.stack([jnp.sum(row**2, 1) for row in rows])
        if bug == "a leaf is missing from the norm":
            squares = squares[1:]
        if (
            bug == "positions are taken for examples"
        ):  # sum of squares in place of the square of a sum
            squares = squares / 2
        norms = jnp.sqrt(squares.sum(0)) * (1 + SLACK)
        if bug == "the norm is rounded":
            norms = norms.astype(jnp.bfloat16).astype(jnp.float32)
        factors = clip_norm / jnp.maximum(norms, clip_norm)
        if bug == "half of C":
            factors = factors / 2
        if bug == "NaN passes the factor":
            factors = jnp.where(mask, factors, 0.0)
        elif bug == "NaN passes the product":
            factors = jnp.where(mask & jnp.isfinite(norms), factors, 0.0)
        else:
            valid = mask & jnp.isfinite(norms)
            factors = jnp.where(valid, factors, 0.0)
            rows = [jnp.where(valid[:, None], row, 0.0) for row in rows]
        if bug == "a broken example empties the batch":
            factors = jnp.where(jnp.isfinite(norms).all(), factors, 0.0)
        if bug == "mean instead of sum":
            factors = factors / mask.sum()
        if bug == "a leaf is missing from the sum":
            rows[0] = 0 * rows[0]
        total = [
            jnp.tensordot(factors, row, 1).reshape(leaf.shape[1:])
            for row, leaf in zip(rows, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, total)

    return answered(clipped)


def test_control_the_twin_without_a_bug_passes():
    it = case("two_layers")
    clipped = planted("none", it.loss)
    for law in (law_of_the_slow_loop, law_of_influence, law_of_the_mask, law_of_absurd_examples):
        law(clipped, it)


@pytest.mark.parametrize(
    "bug, law",
    [
        ("a leaf is missing from the norm", law_of_influence),
        ("positions are taken for examples", law_of_influence),
        ("the norm is rounded", law_of_influence),
        ("half of C", law_of_influence),
        ("mean instead of sum", law_of_the_slow_loop),
        ("parameters are rounded", law_of_the_slow_loop),
        ("a leaf is missing from the sum", law_of_the_slow_loop),
        ("NaN passes the factor", law_of_absurd_examples),
        ("NaN passes the product", law_of_absurd_examples),
        ("a broken example empties the batch", law_of_absurd_examples),
        ("a broken example empties the batch", law_of_the_mask),
        ("examples are centered", law_of_the_slow_loop),
        ("examples are centered", law_of_the_mask),
    ],
)
def test_control_a_planted_error_is_noticed(bug, law):
    it = case("two_layers")
    with pytest.raises(AssertionError):
        law(planted(bug, it.loss), it)


def test_control_a_norm_by_positions_lets_no_canceling_example_hide():
    """The Gram form of a norm in float32, as the textbook has it, takes canceling rows for a small
    gradient."""

    def clipped(params, batch, mask):
        cotangent = jnp.full((*batch.shape[:2], params.shape[1]), 3e3)
        gram = jnp.einsum("btd,bsd->bts", batch, batch) * jnp.einsum(
            "btp,bsp->bts", cotangent, cotangent
        )
        norms = jnp.sqrt(jnp.maximum(gram.sum((1, 2)), 0))
        factors = mask * 0.1 / jnp.maximum(norms, 0.1)
        return SimpleNamespace(value=jnp.einsum("b,btd,btp->dp", factors, batch, cotangent))

    from test_clip_engine import canceling

    with pytest.raises(AssertionError):
        for seed in range(20):
            check_influence(clipped, jnp.zeros((16, 8)), canceling(3, 16, 1e7, seed, 0.0), 0.1)


def test_control_views_clipped_each_for_itself_are_noticed():
    """An example of four views would count four times."""
    loss, params, batch = built("views")

    def clipped(params, batch, mask):
        views = (batch[0].reshape(-1, 1, 4), jnp.repeat(batch[1], 4))
        each = jax.vmap(jax.grad(loss), (None, 0))(params, views)["w"].reshape(-1, 12)
        factors = 0.1 / jnp.maximum(jnp.linalg.norm(each, axis=1), 0.1) * jnp.repeat(mask, 4)
        return SimpleNamespace(value=factors @ each)

    with pytest.raises(AssertionError):
        check_influence(clipped, params, batch, 0.1)
