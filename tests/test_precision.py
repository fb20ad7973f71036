"""`--precision` from the flag to the plan and the step, and what a step costs an accelerator, counted on
its trace."""

import sys
from dataclasses import replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clip_helpers import random
from pace import paced

from sfumato.augment.views import ITSELF
from sfumato.clip.arithmetic import compiled_for
from sfumato.core.errors import ArgumentError
from sfumato.core.precision import PRECISIONS, usual
from sfumato.data.source import DataInfo
from sfumato.networks.image_cost import multiply_adds_by
from sfumato.networks.input import Input
from sfumato.networks.nfnet import NF_RESNET50, NormFreeNet
from sfumato.networks.vit import VisionTransformer
from sfumato.networks.wrn import WideResNet
from sfumato.plan.config import DataConfig, MethodConfig, TrainConfig
from sfumato.plan.making import make_plan
from sfumato.runs.jobs import loss_of

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from passes import STEPS, counted, kind, passes

SHAPE = (16, 16, 3)
NETWORKS = {
    "wrn": lambda key: WideResNet(3, 4, key, 10, 1),
    "nfnet": lambda key: NormFreeNet(
        3, 4, key, replace(NF_RESNET50, depths=(1, 1), widths=(8, 16), stem=4)
    ),
    "vit": lambda key: VisionTransformer(SHAPE, 4, key, width=8, depth=2, heads=2, patch=8),
}


def planned(**asked):
    info = DataInfo("digits", "", ("a", "b"), (8, 8, 1), {"train": 600, "test": 100})
    method = MethodConfig(method="dp-sgd", steps=2, batch=600, **asked)
    return make_plan(TrainConfig(DataConfig(data="digits"), method=method), info).settings.precision


def test_the_plan_holds_the_precision_that_a_run_goes_on_in():
    assert planned(model="cnn") == usual("cpu") == "float32" != usual("gpu")
    assert [planned(model="cnn", precision=name) for name in PRECISIONS] == list(PRECISIONS)
    assert planned(model="scatternet") == "float32"
    with pytest.raises(ArgumentError, match="precision"):
        planned(model="scatternet", precision="bf16")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_activations_are_in_the_compute_type_and_gradients_in_float32(name):
    """But for the head, in float32; every norm of the network has its statistics there, too."""
    params, static = eqx.partition(NETWORKS[name](jax.random.key(0)), eqx.is_inexact_array)
    example = (jnp.asarray(np.abs(random(*SHAPE))), ()), jnp.int32(1)
    half = loss_of(static, Input(), ITSELF, "bf16")
    found = counted(jax.grad(half), params, example)
    head = 3 * params.head.weight.size
    assert set(found) == {"half", "TF32"} and found["TF32"] <= head
    gradient = jax.eval_shape(jax.grad(half), params, example)
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    whole = loss_of(static, Input(), ITSELF, "float32")
    assert abs(jax.jit(half)(params, example) - jax.jit(whole)(params, example)) < 0.1


def test_float32_asks_for_it_where_the_default_is_less():
    params, static = eqx.partition(NETWORKS["vit"](jax.random.key(0)), eqx.is_inexact_array)
    example = (jnp.zeros(SHAPE), ()), jnp.int32(1)
    for precision, wanted in (("float32", "float32"), ("tf32", "TF32")):
        assert set(counted(loss_of(static, Input(), ITSELF, precision), params, example)) == {
            wanted
        }
    with compiled_for("cpu"):
        assert set(
            multiply_adds_by(kind, loss_of(static, Input(), ITSELF, "float32"), params, example)
        ) == {"TF32"}, "on a CPU nothing is asked for: all is float32 there"


MOST = {"WRN-16-4, K = 16": 1.15, "WRN-28-10, K = 16": 1.15, "NF-ResNet-50": 1.15, "ViT-B/16": 1.25}
"""What a DP step may take, in ordinary steps of the same precision."""


TRACED = [*((name, "bf16") for name in MOST), ("WRN-16-4, K = 16", "tf32"), ("ViT-B/16", "tf32")]
"""A larger network of either kind is traced once: half a minute, and the other type counts alike."""


@pytest.mark.parametrize("name, precision", paced(TRACED, ("ViT-B/16", "bf16")))
def test_a_step_is_as_cheap_as_it_should_be_in_the_compute_type(name, precision):
    ordinary, ours = (count(precision) for count in (STEPS[name].ordinary, STEPS[name].clipped))
    assert ours.total() <= MOST[name] * ordinary.total()
    assert passes(ours) <= (MOST[name] + 0.15) * passes(ordinary)
    kind_of = "half" if precision == "bf16" else "TF32"
    assert ours[kind_of] >= 0.98 * ours.total()
