"""The engine takes a loss as it is: of a bare function, Equinox, Flax, Haiku; on one device or a
mesh of eight."""

import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_helpers import assert_close, classes, entropy, flat, gradients, random, slow_sum
from clip_laws import ONE_OUT, QUICK

from sfumato.clip import clipped_grad, explain
from sfumato.core.trees import leaf_names
from sfumato.networks.layers.convolutions import convolve

ENGINES = ("book_keeping", "two_pass")
SHAPE = (6, 6, 2)


def bare():
    params = {
        "kernel": random(3, 3, 2, 4) / 2,
        "bias": random(4, seed=1),
        "head": random(4, 3, seed=2),
    }

    def scores(p, image):
        return jnp.tanh(convolve(image, p["kernel"]) + p["bias"]).mean((0, 1)) @ p["head"]

    return scores, params


def equinox():
    keys = jax.random.split(jax.random.key(0))
    net = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(2, 4, 3, padding=1, key=keys[0]),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.GroupNorm(2, 4),
            eqx.nn.Lambda(lambda maps: maps.mean((1, 2))),
            eqx.nn.Linear(4, 3, key=keys[1]),
        ]
    )
    params, static = eqx.partition(net, eqx.is_inexact_array)
    return lambda p, image: eqx.combine(p, static)(image.transpose(2, 0, 1)), params


def flax_linen():
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, image):
            maps = nn.GroupNorm(num_groups=2)(jnp.tanh(nn.Conv(4, (3, 3))(image)))
            return nn.Dense(3)(maps.mean((0, 1)))

    net = Net()
    return net.apply, net.init(jax.random.key(0), jnp.zeros(SHAPE))


def flax_nnx():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
            self.norm = nnx.LayerNorm(4, rngs=rngs)
            self.head = nnx.Linear(4, 3, rngs=rngs)

        def __call__(self, image):
            return self.head(self.norm(jnp.tanh(self.conv(image[None]))).mean((0, 1, 2)))

    graph, params = nnx.split(Net(nnx.Rngs(0)), nnx.Param)
    return lambda p, image: nnx.merge(graph, p)(image), params


def haiku():
    hk = pytest.importorskip("haiku")

    def forward(image):
        maps = jnp.tanh(hk.Conv2D(4, 3)(image))
        return hk.Linear(3)(hk.LayerNorm(-1, True, True)(maps).mean((0, 1)))

    net = hk.without_apply_rng(hk.transform(forward))
    return net.apply, net.init(jax.random.key(0), jnp.zeros(SHAPE))


FRAMEWORKS = (bare, equinox, flax_linen, flax_nnx, haiku)


@pytest.mark.parametrize(
    "make, method",
    [
        pytest.param(
            make,
            method,
            marks=[] if method == "book_keeping" and make is not bare else [pytest.mark.slow],
        )
        for make in FRAMEWORKS
        for method in ENGINES
    ],
)
def test_an_example_is_clipped_whatever_framework_the_network_is_written_in(make, method):
    apply, params = make()

    def loss(p, e):
        return entropy(apply(p, e[0]), e[1])

    batch = (jnp.asarray(random(5, *SHAPE, seed=3)), jnp.asarray(classes()))
    each = gradients(loss, params, batch)
    clip_norm = float(np.median(np.linalg.norm(each, axis=1)))
    clipped = clipped_grad(loss, clip_norm, method=method)
    got = jax.jit(clipped.__call__, compiler_options=QUICK)(params, batch, ONE_OUT)
    assert jax.tree.structure(got.value) == jax.tree.structure(params), "as an optimizer expects"
    assert_close(flat(got.value), slow_sum(each, ONE_OUT, clip_norm), 2e-5)
    plan = explain(loss, params, jax.tree.map(lambda leaf: leaf[0], batch))
    line = {text.split()[0]: text for text in plan.splitlines() if text.split()}
    for name, leaf in zip(leaf_names(params), jax.tree.leaves(params), strict=True):
        assert name in line
        kernel = leaf.size > max(leaf.shape)
        assert not kernel or "lifted" not in line[name], (
            f"a kernel of the usual kind needs no fallback: {plan}"
        )


MESH = """
import sys
sys.path.insert(0, sys.argv[1])
import conftest
import jax
import jax.numpy as jnp
import numpy as np
from clip_helpers import assert_close, flat, random
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sfumato.clip import clipped_grad
from test_clip_frameworks import bare, entropy

assert jax.device_count() == 8
scores, params = bare()
params = jax.tree.map(jnp.asarray, params)
AUTO, EXPLICIT = (jax.make_mesh((8,), ("data",), axis_types=(kind,)) for kind in (AxisType.Auto, AxisType.Explicit))
batch = (random(16, 6, 6, 2, seed=3), (np.arange(16) % 3).astype(np.int32))
mask = np.arange(16) != 5

def spread(mesh, tree, *axes):
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*axes)))

CASES = [(AUTO, {"method": "book_keeping"}), (EXPLICIT, {"method": "two_pass"}), (AUTO, {"microbatch": 8}),
         (EXPLICIT, {"method": "book_keeping"}), (AUTO, {"method": "two_pass"}), (EXPLICIT, {"microbatch": 8})]
for mesh, settings in CASES:
    step = jax.jit(clipped_grad(lambda p, e: entropy(scores(p, e[0]), e[1]), 0.5, **settings).__call__)
    wanted = flat(step(params, batch, mask).value)
    got = step(spread(mesh, params), spread(mesh, batch, "data"), spread(mesh, mask, "data"))
    assert len(jax.tree.leaves(got.value)[0].sharding.device_set) == 8
    assert_close(flat(got.value), wanted, 1e-5)
    print(mesh.axis_types, settings, "agreed", flush=True)
print("all agreed")
"""


@pytest.mark.slow  # the fast run has the sums of `test_layout.py`, on as many devices
def test_eight_devices_give_the_sum_of_one():
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
    }
    run = subprocess.run(
        [sys.executable, "-c", MESH, str(Path(__file__).parent)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.stdout.endswith("all agreed\n"), run.stdout + run.stderr[-3000:]
