"""`sfumato models`, and the cost of a forward pass against counts by hand and published ones."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from run_helpers import refused, succeeds

from sfumato.core.errors import ArgumentError
from sfumato.features import by_name
from sfumato.networks import catalog
from sfumato.networks.counted import describe
from sfumato.networks.image_cost import forward_cost, multiply_adds, outline, parameters
from sfumato.networks.listed import listed
from sfumato.networks.naming import short


def array(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def convolution(groups: int, stride: int):  # type: ignore[no-untyped-def]
    return lambda image, kernel: jax.lax.conv_general_dilated(
        image,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@pytest.mark.parametrize(
    "function, arguments, expected",
    [
        (jnp.matmul, (array(5, 7), array(7, 3)), 5 * 7 * 3),
        (jnp.matmul, (array(2, 5, 7), array(2, 7, 3)), 2 * 5 * 7 * 3),
        (
            lambda x, y: jnp.einsum("abc,bcd->ad", x, y),
            (array(2, 3, 4), array(3, 4, 5)),
            2 * 3 * 4 * 5,
        ),
        (convolution(1, 1), (array(1, 8, 6, 4), array(3, 3, 4, 10)), 8 * 6 * 10 * 9 * 4),
        (convolution(1, 2), (array(1, 8, 6, 4), array(3, 3, 4, 10)), 4 * 3 * 10 * 9 * 4),
        (convolution(4, 1), (array(1, 8, 6, 4), array(3, 3, 1, 4)), 8 * 6 * 4 * 9),
        (jax.jit(lambda x: jnp.tanh(x) + 1), (array(5),), 0),
        (
            lambda x: jax.lax.scan(lambda c, w: (c @ w, None), x, jnp.ones((6, 4, 4)))[0],
            (array(4),),
            6 * 4 * 4,
        ),
        (lambda x: jax.lax.fori_loop(0, 5, lambda _, y: y @ y, x), (array(3, 3),), 5 * 27),
        (jax.checkpoint(jax.vmap(lambda x: x @ x)), (array(6, 4),), 6 * 4),
        (
            lambda x: jax.lax.cond(x[0, 0] > 0, lambda y: y @ y, lambda y: y @ y @ y, x),
            (array(3, 3),),
            2 * 27,
        ),
        (jax.grad(lambda x: jnp.sum(x @ x)), (array(3, 3),), 3 * 27),
    ],
)
def test_multiply_adds_by_hand(function, arguments: tuple, expected: int) -> None:  # type: ignore[no-untyped-def]
    assert multiply_adds(function, *arguments) == expected


def wide_resnet_by_hand(depth: int, width: int, side: int, classes: int) -> int:
    """Positions x taps x inputs x outputs per convolution."""
    total, inputs = side * side * 9 * 3 * 16, 16
    for stage in range(3):
        outputs, positions = 16 * width * 2**stage, (side >> stage) ** 2
        for block in range((depth - 4) // 6):
            total += (
                positions * outputs * (9 * inputs + 9 * outputs + (inputs if block == 0 else 0))
            )
            inputs = outputs
    return total + inputs * classes


@pytest.mark.parametrize(
    "name, depth, width", [("wrn-16-4", 16, 4), ("wrn-40-4", 40, 4), ("wrn-28-10", 28, 10)]
)
def test_the_cost_of_wide_resnets(name: str, depth: int, width: int) -> None:
    network = outline(catalog.find(name), (32, 32, 3), 10)
    assert forward_cost(network, (32, 32, 3)) == wide_resnet_by_hand(depth, width, 32, 10)


def test_wrn_28_10_costs_what_is_published() -> None:
    """36.5 million parameters (Zagoruyko & Komodakis 2016, Table 4); the literature has 5.2 billion
    multiply-adds."""
    network = outline(catalog.find("wrn-28-10"), (32, 32, 3), 10)
    assert parameters(network) == pytest.approx(36.5e6, rel=0.01)
    assert forward_cost(network, (32, 32, 3)) == pytest.approx(5.2e9, rel=0.02)


def test_abstract_and_real_networks_cost_the_same() -> None:
    real = by_name.network("cnn", (16, 16, 1), 3, jax.random.key(0)).network
    abstract = outline(catalog.find("cnn"), (16, 16, 1), 3)
    counted = sum(np.size(leaf) for leaf in jax.tree.leaves(eqx.filter(real, eqx.is_array)))
    assert parameters(real) == parameters(abstract) == counted
    assert forward_cost(real, (16, 16, 1)) == forward_cost(abstract, (16, 16, 1)) > 0


# -- the command


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three known ones, and one more."""
    known = {name: listed()[name] for name in ("cnn", "wrn-16-4", "wrn-28-10")}
    known["of-224"] = replace(
        known["wrn-16-4"],
        name="of-224",
        shape=(224, 224, 3),
        any_size=False,
        classes=1_000,
        weights=("a/b", "a/c", "a/d"),
    )
    monkeypatch.setattr("sfumato.cli.model_table.listed", lambda: known)


def test_networks_are_listed_with_what_they_cost(few: None) -> None:
    shown = succeeds("models")
    assert [line.split(" ")[0] for line in shown.splitlines()[1:5]] == [
        "cnn",
        "wrn-16-4",
        "wrn-28-10",
        "of-224",
    ]
    line = next(line for line in shown.splitlines() if line.startswith("wrn-28-10 "))
    assert line.split()[1:] == ["36.5", "M", "5.24", "G", "32x32x3*", "640"]
    assert "224x224x3 " in shown and "  a/b and 2 more" in shown


def test_the_list_has_all_networks() -> None:
    rows = json.loads(succeeds("models", "--json"))
    assert [row["name"] for row in rows] == list(catalog.architectures())
    assert all(row["multiply_adds"] > row["features"] * row["classes"] > 0 for row in rows)


SMALLEST = {
    min(each, key=lambda name: listed()[name].depth)
    for each in (
        [name for name, row in listed().items() if row.family == family]
        for family in {row.family for row in listed().values()}
    )
}
"""One of each family."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=[] if each in SMALLEST else pytest.mark.slow) for each in listed()],
)
def test_the_list_is_what_is_counted(name: str) -> None:
    found = describe(catalog.find(name))
    assert listed()[name] == found, f"in networks/listed.json: {json.dumps(asdict(found))}"


@pytest.mark.parametrize("name", listed())
def test_the_list_says_of_an_image_what_the_network_says(name: str) -> None:
    """Quick, for all of them."""
    row, found = listed()[name], catalog.find(name)
    own = found.input
    assert (row.family, row.weights, row.mean, row.std) == (
        found.family,
        found.weights,
        own.mean,
        own.std,
    )
    assert (row.interpolation, row.any_size) == (own.interpolation, own.size is None)


# -- names


def test_short_names() -> None:
    for given, name in {
        "vit-b16": "vit_base_patch16_224",
        "ViT-B/16": "vit_base_patch16_224",
        "mobilenetv2": "mobilenetv2_100",
        "vit-b16-384": "vit_base_patch16_384",
        "tf-mobilenetv2": "tf_mobilenetv2_100",
        "ResNet50": "resnet50",
        "convnext-t": "convnext_tiny",
        "wrn-28-10": "wrn-28-10",
    }.items():
        assert catalog.find(given).name == by_name.check(given) == name
    assert len({short(name) for name in listed()}) == len(listed())


@pytest.mark.parametrize(
    "given, says",
    [
        ("resnet", ("several networks begin so: resnet18, resnet34,", "and 8 more")),
        ("vit-s", ("vit_small_patch32_224",)),
        ("resnet51", ("no such network", "did you mean resnet50?")),
        ("scaterring", ("did you mean scattering?",)),
        ("vi", ("no such network",)),
        ("wrn-16", ("no such network", "wrn-DEPTH-WIDTH")),
        ("", ("no such network",)),
    ],
)
def test_names_that_are_none_or_several_are_refused(given: str, says: tuple[str, ...]) -> None:
    with pytest.raises(ArgumentError) as refusal:
        by_name.check(given)
    assert all(words in str(refusal.value) for words in says), refusal.value


def test_json_has_the_whole_numbers(few: None) -> None:
    rows = {row["name"]: row for row in json.loads(succeeds("models", "--json"))}
    assert rows["of-224"]["classes"] == 1_000 and rows["of-224"]["weights"] == ["a/b", "a/c", "a/d"]
    assert rows["wrn-16-4"]["parameters"] == 2_753_818
    assert rows["wrn-16-4"]["multiply_adds"] == wide_resnet_by_hand(16, 4, 32, 10)


def test_one_network_in_detail_also_one_that_is_not_listed(tmp_path: Path) -> None:
    shown = succeeds("models", "wrn-22-2")
    assert (
        f"{wide_resnet_by_hand(22, 2, 32, 10):,} for the forward pass" in shown
        and "32x32x3, and other sizes" in shown
    )
    assert json.loads(succeeds("models", "wrn-22-2", "--json"))["depth"] == 9
    refused(tmp_path, "models", "resnet-of-mine", says=("model='resnet-of-mine'",))
