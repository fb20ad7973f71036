"""Losses made to fool the engine: gradients of one's own that are not linear, weights that meet data in
every way, and what XLA makes of them. Each is clipped as the slow loop does, and bounded at absurd scales."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_helpers import B, alone, assert_close, everyone, flat, gradients, random, slow_sum
from jax import lax

from sfumato.clip import clipped_grad
from sfumato.networks.layers.standardization import standardize, unit_kernel

LOSSES = {}


def loss(*shapes, data=(4,)):
    """shapes: of the parameters; data: of an example."""

    def entered(function):
        params = [jnp.asarray(random(*shape, seed=20 + k)) for k, shape in enumerate(shapes)]
        LOSSES[function.__name__] = function, params, data
        return function

    return entered


def head(hidden):
    return jnp.sum(jnp.tanh(hidden) * random(*hidden.shape, seed=77))


# fmt: off
# One line each: what is hostile is the point, not the layout.
def nonlinear(bwd):
    @jax.custom_vjp
    def f(x): return x
    f.defvjp(lambda x: (x, None), lambda _, g: (bwd(g),))
    return f
unit = nonlinear(lambda g: g / (jnp.sqrt(jnp.sum(g*g)) + 1e-30))
signg = nonlinear(jnp.sign)
hugeg = nonlinear(lambda g: jnp.where(jnp.sqrt(jnp.sum(g*g)) > 3.0, 1e3 * g, g))
const = nonlinear(lambda g: jnp.ones_like(g))
inv = nonlinear(lambda g: 1.0/(g+1e-3))

@loss((4,3))
def unit_on_weight(p, x): return head(x @ unit(p[0]))
@loss((4,3))
def sign_on_weight(p, x): return head(x @ signg(p[0]))
@loss((4,3))
def jump_on_weight(p, x): return head(x @ hugeg(p[0]))
@loss((4,3))
def const_on_weight(p, x): return head(x @ const(p[0]))
@loss((4,3))
def inv_on_weight(p, x): return head(x @ inv(p[0]))
@loss((2,4,3))
def unit_in_scan(p, x):
    return head(lax.scan(lambda s, w: (s + x @ unit(w), None), jnp.zeros(3), p[0])[0])
@loss((3,4,4))
def unit_in_remat_scan(p, x):
    return head(lax.scan(jax.checkpoint(lambda s, w: (jnp.tanh(s @ unit(w)), None)), x, p[0])[0])
@loss((4,3))
def jitted_unit(p, x): return head(x @ jax.jit(unit)(p[0]))
@loss((6,3), data=(4,))
def unit_table(p, x):
    return head(unit(p[0])[jnp.clip(jnp.abs(x*2).astype(int),0,5)].sum(0))
@loss((4,3))
def unit_activations(p, x): return head(unit(x @ p[0]))
@loss((4,4))
def shared_slices(p, x): return head(x[:2] @ p[0][:2] + x[1:] @ p[0][1:])
@loss((4,3))
def complex_(p, x): return jnp.abs(jnp.sum(jnp.fft.fft(x @ p[0]) * (1+2j)))
@loss((4,3))
def complex_weight(p, x):
    w = p[0] + 1j*jnp.sin(p[0])
    return jnp.real(jnp.sum((x @ w)**2))
@loss((4,3))
def int_cast(p, x): return head(x @ p[0]) * (jnp.sum(p[0]*100).astype(int)).astype(float)
@loss((4,3))
def whiles(p, x):
    n = lax.while_loop(lambda c: jnp.abs(c[0]).sum() < 20, lambda c: (c[0]*1.5+.1, c[1]+1), (x, 0))[1]
    return head(x @ p[0]) * n
@loss((4,4))
def cond_data(p, x): return lax.cond(x.sum() > 0, lambda: head(x @ p[0]), lambda: 100*head(jnp.cos(x) @ p[0].T))
@loss((3,4,4))
def switch_data(p, x): return head(lax.switch(jnp.argmax(x)%3, [lambda k=k: x @ p[0][k] for k in range(3)]))
@loss((3,4,4))
def dynamic_index(p, x): return head(x @ lax.dynamic_index_in_dim(p[0], jnp.argmax(x)%3, keepdims=False))
@loss((4,4))
def scatter(p, x): return head(jnp.zeros(6).at[jnp.argsort(x)].add(x @ p[0])) 
@loss((4,4))
def scatter_weight(p, x): return head(x @ p[0].at[jnp.argmax(x)].set(0.0))
@loss((4,4))
def scatter_mul(p, x): return head(x @ p[0].at[jnp.argmax(x)].multiply(5.0))
@loss((4,4))
def sort_weight(p, x): return head(x @ jnp.sort(p[0], 0))
@loss((4,4))
def cumsum(p, x): return head(jnp.cumsum(x @ jnp.cumsum(p[0], 0)))
@loss((4,4))
def cumprod(p, x): return head(x @ jnp.cumprod(p[0], 1))
@loss((2,5),(5,2), data=(3,2))
def einsum_three(p, x): return head(jnp.einsum("td,dp,pe->te", x, *p))
@loss((2,2), data=(3,2))
def einsum_diag(p, x): return head(jnp.einsum("td,dd->t", x, p[0]))
def cv(x, w, **k): return lax.conv_general_dilated(x[None], w, k.pop("strides",(1,1)), k.pop("padding","SAME"), dimension_numbers=("NHWC","HWIO","NHWC"), **k)
@loss((3,3,4,6), data=(2,6,6,4))
def conv_batch_groups(p, x):
    return head(lax.conv_general_dilated(x, p[0], (1,1), "SAME", dimension_numbers=("NHWC","HWIO","NHWC"), batch_group_count=2))
@loss((3,3,4,3), data=(5,5,4))
def conv_transposed(p, x): return head(lax.conv_transpose(x[None], p[0], (2,2), "SAME", dimension_numbers=("NHWC","HWIO","NHWC")))
@loss((3,3,4,3), data=(5,5,4))
def conv_lhs_dilated(p, x): return head(cv(x, p[0], lhs_dilation=(2,2), rhs_dilation=(2,1), padding=((1,2),(2,2))))
@loss((3,3,4,3), data=(5,5,4))
def conv_flipped(p, x): return head(cv(x, p[0][::-1, :, :, ::-1]))
@loss((5,5,3), data=(5,5,4))
def conv_weight_is_image(p, x): return head(cv(p[0], x[:3,:3,:3,None]))
@loss((3,3,4,4),(4,), data=(5,5,4))
def std_gain(p, x): return head(cv(x, standardize(p[0], p[1])))
@loss((3,3,4,4),(4,), data=(5,5,4))
def std_gain_twice(p, x): return head(cv(x, standardize(p[0], p[1]))) + head(x @ p[1])
@loss((3,3,4,4), data=(5,5,4))
def std_own_gain(p, x): return head(cv(x, standardize(p[0], p[0][0,0,0])))
@loss((3,3,4,4), data=(5,5,4))
def std_shared_conv(p, x): return head(cv(x, standardize(p[0], jnp.ones(4))))+head(cv(x, p[0]))
@loss((3,3,4,4),(4,), data=(5,5,4))
def std_of_unit(p, x): return head(cv(x, standardize(unit(p[0]), p[1])))
@loss((3,3,4,4), data=(5,5,4))
def unitk(p, x): return head(cv(x, unit_kernel(p[0], 1e-6)))
@loss((3,3,4,4), data=(5,5,4))
def unitk_scaled(p, x): return head(cv(x, 1e3 * unit_kernel(p[0], 1e-6)))
@loss((2,3,3,4,4), data=(5,5,4))
def std_scanned(p, x): return head(lax.scan(lambda s, w: (jnp.tanh(cv(s, standardize(w, jnp.ones(4)))[0]), None), x, p[0])[0])
@loss((3,3,4,4), data=(5,5,4))
def std_conv_iohw(p, x):
    return head(lax.conv_general_dilated(x[None], standardize(p[0], jnp.ones(4)), (1,1), "SAME", dimension_numbers=("NHWC","HWOI","NHWC")))
@loss((4,3))
def random_by_data(p, x): return head(x @ p[0] * jax.random.normal(jax.random.fold_in(jax.random.key(3), jnp.argmax(x)), (3,)))
@loss((4,3))
def random_by_param(p, x): return head(x @ (p[0] * jax.random.normal(jax.random.fold_in(jax.random.key(3), jnp.argmax(p[0])), (4,3))))
@loss((4,3))
def named_checkpoint(p, x):
    from jax.ad_checkpoint import checkpoint_name

    return head(jax.checkpoint(lambda w, x: checkpoint_name(x @ w, "a"), policy=jax.checkpoint_policies.save_only_these_names("a"))(p[0], x))
@loss((4,3))
def views_pmean(p, x): return jax.vmap(lambda k: head(lax.pmean((x + k) @ p[0], "v")), axis_name="v")(jnp.arange(3.)).mean()
@loss((4,4))
def hessian_inside(p, x): return jnp.sum(jax.hessian(lambda y: head(y @ p[0]))(x)**2)
@loss((4,4))
def jvp_inside(p, x): return jax.jvp(lambda w: head(x @ w), (p[0],), (jnp.sin(p[0]),))[1]
@loss((4,4))
def solve_(p, x): return head(jnp.linalg.solve(p[0] + 5*jnp.eye(4), x))
@loss((4,4))
def eigh(p, x): return head(jnp.linalg.eigh(p[0]+p[0].T + jnp.diag(x))[0])
@loss((4,4))
def spectral(p, x): return head(x @ (p[0] / jnp.linalg.norm(p[0], 2)))
@loss((4,4))
def cholesky(p, x): return head(jnp.linalg.cholesky(p[0]@p[0].T + (1+x@x)*jnp.eye(4))@x)
@loss((4,4))
def sqrt_zero(p, x): return jnp.sqrt(jnp.abs(jnp.sum(jax.nn.relu(x @ p[0] - 100))))
@loss((4,4))
def scan_carry(p, x):
    return head(lax.scan(lambda w, t: (w * jnp.cos(t), x @ w), p[0], x)[1])
@loss((4,4))
def scan_carry_param(p, x):
    return head(x @ lax.scan(lambda w, t: (jnp.tanh(w @ p[0]), None), p[0], None, length=3)[0])
@loss((0,4),(4,4))
def empty_leaf(p, x): return head(x @ p[1]) + jnp.sum(p[0])
@loss((4,4))
def repeat_weight(p, x): return head(jnp.concatenate([x,x]) @ jnp.concatenate([p[0],p[0]]))
@loss((4,4))
def broadcast_weight(p, x): return head(jnp.broadcast_to(x,(3,4))[:,None] @ jnp.broadcast_to(p[0],(3,4,4)))
@loss((4,4))
def pad_weight(p, x): return head(x @ jnp.pad(p[0], ((0,0),(0,3)), mode="reflect"))
@loss((4,4))
def strided_overlap(p, x): return head(x[:2] @ p[0][::2]) + head(x[2:] @ p[0][1::2])
@loss((4,4))
def negative_index(p, x): return head(p[0][-1-jnp.argmax(x)])
@loss((4,4))
def out_of_bounds(p, x): return head(jnp.take(p[0], jnp.array([0,7,jnp.int32(x[0]*5)]), axis=0, mode="clip").sum(0)) + head(jnp.take(p[0], jnp.array([9,1]), axis=0, mode="fill", fill_value=2.0).sum(0))
@loss((4,4))
def wrap_index(p, x): return head(jnp.take(p[0], (x*100).astype(int), axis=0, mode="wrap").sum(0))
@loss((4,4))
def custom_root(p, x): return head(lax.custom_root(lambda y: y - 0.1*jnp.sin(y @ p[0]) - x, x, lambda f, y: lax.fori_loop(0,30,lambda i,z: z-f(z), y), lambda g, y: jnp.linalg.solve(jax.jacobian(g)(y), y)))
@loss((4,4))
def pure_cb(p, x): return head(jax.pure_callback(lambda v: np.asarray(v), jax.ShapeDtypeStruct((4,), jnp.float32), lax.stop_gradient(x), vmap_method="sequential") @ p[0])
@loss((4,4))
def opt_barrier(p, x): return head(x @ lax.optimization_barrier(p[0]))
@loss((4,4))
def reduce_prec(p, x): return head(x @ lax.reduce_precision(p[0], 8, 19))
@loss((4,4))
def associative(p, x): return head(lax.associative_scan(jnp.add, x[:,None] * p[0]))
@loss((4,4))
def argmax_param(p, x): return head(x @ p[0]) + p[0][jnp.unravel_index(jnp.argmax(p[0]), (4,4))] * 10
@loss((4,4))
def linear_transpose(p, x): return head(jax.linear_transpose(lambda y: p[0] @ y, x)(x)[0])
@loss((4,4))
def custom_vjp_site(p, x):
    @jax.custom_vjp
    def f(w, x): return x @ w
    f.defvjp(lambda w, x: (x @ w, (w, x)), lambda r, g: (jnp.outer(r[1], g)/ (1e-9+jnp.linalg.norm(g)) * 50, g @ r[0].T))
    return head(f(p[0], x))
# fmt: on


QUICK = ("unit_on_weight", "unit_in_scan", "scatter_weight")
SCALES = (-120, -60, -30, 30, 60, 120)


@pytest.mark.parametrize("method", ["book_keeping", "two_pass"])
@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=[] if each in QUICK else pytest.mark.slow) for each in LOSSES]
)
def test_a_hostile_loss_is_clipped_as_the_slow_loop_does(name, method):
    function, params, data = LOSSES[name]
    batch = jnp.asarray(random(B, *data, seed=9))
    each = gradients(function, params, batch)
    clip_norm = float(np.median(np.linalg.norm(each, axis=1))) or 1.0
    clipped = jax.jit(clipped_grad(function, clip_norm, method=method).__call__)
    total = flat(clipped(params, batch, everyone()).value)
    assert_close(total, slow_sum(each, everyone(), clip_norm), 2e-5)
    for i in range(B):
        moved = np.linalg.norm(total - flat(clipped(params, batch, ~alone(i)).value))
        assert moved <= clip_norm * (1 + 2e-5), (
            f"example {i} moves the sum by {moved / clip_norm} C"
        )
    for k in SCALES:
        own = flat(clipped(params, batch * np.float32(2.0**k), alone(k % B)).value)
        assert np.linalg.norm(own) <= clip_norm, f"times 2^{k}, example {k % B} is above C"
