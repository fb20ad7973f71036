"""Laws over all augmentations: a view is a function of its own image and its own secret draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sfumato import augment
from sfumato.augment.views import views_of
from sfumato.cli import _allow_typed
from sfumato.clip import clipped_grad
from sfumato.core import plugins, typed_json
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.data.source import DataInfo, from_arrays
from sfumato.networks.input import Input, pixels
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, TrainConfig
from sfumato.plan.making import make_plan
from sfumato.plan.plan import Plan
from sfumato.runs.jobs import build
from sfumato.runs.progress import Quiet
from sfumato.train.sgd_settings import SGDSettings, default_settings

SHAPE, COUNT, B = (18, 24, 3), 4, 5
IMAGES = np.random.default_rng(3).integers(0, 256, (B, *SHAPE), np.uint8)
INDICES = np.array([3, 8, 20, 21, 40])
NAMES = [
    *(name if name != "mix" else "shift+mix" for name in augment.AUGMENTATIONS),
    "crop+color+mix",
]


def made(names, images=IMAGES, indices=INDICES, step=2, seed=0, count=COUNT):
    """(views, what was drawn for them)."""
    key = SecretKey.from_insecure_seed(seed)
    own = Input(crop=augment.kept(names))
    views, _ = views_of(
        names,
        count,
        images.shape[1:],
        own,
        lambda name, *at: key.words(("v", at[0], *name), *at[1:]),
    )
    draws = views.draws(indices, step)
    return np.asarray(jax.jit(jax.vmap(views))(images, draws)), draws


@pytest.mark.parametrize("names", NAMES)
def test_a_view_is_of_its_own_image_and_its_own_draws_alone(names):
    whole, draws = made(names)
    for one in range(B):  # alone, or among others
        alone, own = made(names, IMAGES[[one]], INDICES[[one]])
        np.testing.assert_allclose(alone[0], whole[one], atol=1e-6)
        assert all(np.array_equal(a[0], b[one]) for a, b in zip(own, draws, strict=True))
    others = IMAGES.copy()
    others[1:] = 255 - others[1:]
    changed, _ = made(names, others)
    assert np.array_equal(changed[0], whole[0]) and not np.array_equal(changed[1], whole[1])
    for change in ({"seed": 1}, {"step": 3}, {"indices": INDICES + 1}):
        assert not any(
            np.array_equal(a, b) for a, b in zip(made(names, **change)[1], draws, strict=True)
        )
    assert len(np.unique(whole.reshape(B * COUNT, -1), axis=0)) > B * (COUNT - 1)
    values = np.asarray(pixels(jnp.asarray(whole)))
    assert values.min() >= 0 and values.max() <= 1 + 1e-6


@pytest.mark.parametrize("names", [name for name in NAMES if "mix" not in name])
def test_a_view_does_not_know_how_many_there_are(names):
    assert np.array_equal(made(names)[0][:, :2], made(names, count=2)[0])


@pytest.mark.parametrize("names", NAMES)
def test_other_draws_of_one_example_change_its_own_gradient_alone(names):
    """Bit for bit, and by no more than one clip, however many views there are."""
    _, draws = made(names)
    _, others = made(names, seed=9)
    views, own = views_of(names, COUNT, SHAPE, Input(crop=augment.kept(names)), lambda *_: None)
    width = int(np.prod(own.shape((*views.augmentations[0].out, 3))))

    def loss(params, example):
        seen = pixels(views(*example)).reshape(COUNT, -1)
        return jnp.tanh(seen @ params["w"]).sum() * 50

    clipped = jax.jit(clipped_grad(loss, 1.0).__call__)
    params = {"w": jnp.asarray(np.random.default_rng(0).standard_normal(width), jnp.float32) / 50}

    def alone(drawn, one):
        return np.asarray(clipped(params, (IMAGES, drawn), jnp.arange(B) == one).value["w"])

    mixed = tuple(np.concatenate([b[:1], a[1:]]) for a, b in zip(draws, others, strict=True))
    assert all(np.array_equal(alone(draws, one), alone(mixed, one)) for one in range(1, B))
    first, other = alone(draws, 0), alone(mixed, 0)
    assert not np.array_equal(first, other)
    assert max(np.linalg.norm(each) for each in (first, other)) <= 1 + 1e-5


def test_crops_are_windows_of_the_image_and_its_center_at_evaluation():
    whole, (draws,) = made("crop")
    assert whole.shape == (B, COUNT, 15, 20, 3)
    for image, views, own in zip(IMAGES, whole, draws, strict=True):
        for view, (top, left, flipped) in zip(views, own, strict=True):
            part = image[top : top + 15, left : left + 20]
            assert np.array_equal(view, part[:, ::-1] if flipped else part)
    sizes = [
        Input(size, crop=1 / 1.2).window((side, side)) for size, side in ((224, 269), (224, 268))
    ]
    assert sizes == [(224, 224)] * 2 and Input(crop=1 / 1.2).shape((36, 36, 1)) == (30, 30, 1)
    seen = Input(mean=(0.0,), std=(1.0,), crop=0.5)(jnp.asarray(IMAGES[0]))
    np.testing.assert_allclose(seen, IMAGES[0][4:13, 6:18] / 255, atol=1e-6)


@pytest.mark.slow
def test_inception_boxes_have_the_published_areas_and_aspects():
    _, (draws,) = made("inception", np.zeros((1, 96, 96, 1), np.uint8), np.arange(1), count=4000)
    top, left, height, width, flipped = np.moveaxis(draws[0], -1, 0)
    area = height * width / 96**2
    assert 0.07 < area.min() < 0.12 and 0.95 < area.max() <= 1
    assert 0.7 < (width / height).min() < 0.77 and 1.3 < (width / height).max() < 1.43
    assert (top >= 0).all() and (top + height <= 96).all() and (left + width <= 96).all()
    assert not flipped.any(), "what is gray may be a digit"


def test_inception_resizes_as_bilinear_interpolation_of_the_box():
    """Of an image that is linear in both directions, between the centers of the box's border pixels."""
    rows, columns = np.meshgrid(np.arange(24.0), np.arange(24.0), indexing="ij")
    image = np.stack([rows, columns, rows], -1).astype(np.float32)[None] / 100
    whole, (draws,) = made("inception", image, INDICES[:1], count=8)
    for view, (top, left, height, width, flipped) in zip(whole[0], draws[0], strict=True):
        view = view[:, ::-1] if flipped else view
        for axis, (first, size) in enumerate(((top, height), (left, width))):
            at = np.clip((np.arange(len(view)) + 0.5) * size / len(view) - 0.5, 0, size - 1)
            found = view[:, 0, 0] if axis == 0 else view[0, :, 1]
            np.testing.assert_allclose(100 * found, first + at, atol=1e-3)


def test_half_of_the_views_are_mixtures_of_the_others_of_the_same_example():
    whole, (_, draws) = made("shift+mix", count=6)
    plain, _ = made("shift", count=3)
    np.testing.assert_allclose(whole[:, :3], plain / 255, atol=1e-6)
    for views, own in zip(whole, draws, strict=True):
        for view, (one, other, weight) in zip(views[3:], own[3:], strict=True):
            assert one != other and max(one, other) < 3 and 0 <= weight <= 2**16
            share = weight / 2**16
            expected = share * views[one] + (1 - share) * views[other]
            np.testing.assert_allclose(view, expected, atol=1e-5)


@pytest.mark.parametrize(
    "names, says",
    [
        ("mixup", "two people"),
        ("crop+cutmix", "two people"),
        ("shift+crop", "choose one"),
        ("color+color", "choose one"),
        ("crops", "shift, crop"),
        ("shift+", "shift, crop"),
        ("nowhere:Class", "--trust"),
    ],
)
def test_what_is_no_augmentation_is_refused_in_one_line(names, says):
    with pytest.raises(ArgumentError, match=r"^augment=") as refusal:
        MethodConfig("dp-sgd", augment=names).check()
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


def test_settings_give_an_augmentation_as_many_views_as_it_takes():
    small, wide = (
        default_settings("cnn", 1000, 3.0, 1.0),
        default_settings("network", 1000, 3.0, 1.0),
    )
    found = [(small, "crop", 1), (small, "crop+mix", 3), (wide, "crop", 16), (wide, "none", 0)]
    for settings, names, views in found:
        assert settings.adjusted(augment=names).views == views
    assert isinstance(small, SGDSettings) and small.adjusted(views=4).augment == "shift"
    for given in ({"augment": "crop", "views": 0}, {"augment": "none", "views": 2}):
        with pytest.raises(ArgumentError, match="views"):
            wide.adjusted(**given)
    with pytest.raises(ArgumentError, match="views=2"):
        wide.adjusted(augment="shift+mix", views=2)


def plan_of(names: str) -> tuple[Plan, object]:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 12, 3), np.uint8)
    source = from_arrays(pixels, np.arange(12) % 3)
    info = DataInfo("arrays", "memory", source.class_names, source.shape, {"train": 12})
    method = MethodConfig("dp-sgd", "cnn", augment=names, steps=1, batch=12)
    return make_plan(TrainConfig(DataConfig("arrays"), PrivacyConfig(50.0), method), info), source


@pytest.mark.slow
@pytest.mark.parametrize("names", ["crop", "inception+color"])
def test_a_run_learns_from_views_and_its_model_sees_the_center(names):
    plan, source = plan_of(names)
    key = SecretKey.from_insecure_seed(0)
    job = build(plan, source, source, 0, key, Quiet())
    procedure = job.procedure
    state = procedure.start()
    total = procedure.measure(state, 0, key)
    assert np.isfinite(
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(total.value)])
    ).all()
    classifier = job.classifier(state)
    assert classifier.spec.input.crop == augment.kept(names)
    one, other = source.raw(np.arange(1)), source.raw(np.arange(1))
    other[:, 0] = 0  # the border is not looked at
    assert np.array_equal(*(classifier.probabilities(each) for each in (one, other)))


def test_what_is_fed_of_an_example_does_not_know_the_others():
    plan, source = plan_of("crop+color+mix")
    fetch = build(plan, source, None, 0, SecretKey.from_insecure_seed(0), Quiet()).procedure.fetch
    together = jax.tree.leaves(fetch(np.array([7, 2, 9]), 1))
    for place, index in enumerate((7, 2, 9)):
        alone = jax.tree.leaves(fetch(np.array([index]), 1))
        assert all(np.array_equal(a[0], b[place]) for a, b in zip(alone, together, strict=True))


def test_an_augmentation_from_outside_keeps_the_same_laws(monkeypatch):
    monkeypatch.setattr(plugins, "_allowed", set())
    names = "shift+plugins.darker:Darker"
    with pytest.raises(ArgumentError, match="--trust"):
        augment.parse(names)
    _allow_typed([f"--augment={names}"])
    test_a_view_is_of_its_own_image_and_its_own_draws_alone(names)
    plan, _ = plan_of(names)
    assert typed_json.convert(SGDSettings, typed_json.plain(plan.settings)) == plan.settings
    assert "darker by up to a half" in augment.words(plan.settings.augment)


def test_features_have_no_views():
    for model in ("scattering", "auto"):
        config = (
            MethodConfig("dp-sgd", model, augment="crop")
            if model != "auto"
            else MethodConfig("ls", model, augment="crop")
        )
        with pytest.raises(ArgumentError, match="augment"):
            plan = TrainConfig(DataConfig("a"), method=config)
            make_plan(plan, DataInfo("a", "m", ("0", "1"), (8, 8, 1), {"train": 50}))
