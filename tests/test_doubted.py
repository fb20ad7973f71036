"""Features that dp-fc keeps only where its first gradient shows that they tell classes apart."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from chance import has_deviation
from run_helpers import succeeds, train_arguments

from sfumato.core import typed_json
from sfumato.core.keys import SecretKey
from sfumato.core.tasks import UNKNOWN
from sfumato.features import by_name
from sfumato.features.feature_map import Group
from sfumato.privacy.ledger import Ledger
from sfumato.solve import doubted
from sfumato.solve.covariance_settings import CovarianceSettings, rule
from sfumato.solve.fc import FIRST_GRADIENT, MEAN, MOMENTS, FeatureCovariance
from sfumato.train.loop import State, run

GROUPS = (Group(1, 6, 0.5), Group(3, 4, 0.5, doubted=2))
D, DOUBTED, CLASSES, N = 18, slice(10, 18), 3, 3_000
KEY = SecretKey.from_insecure_seed(5)


@cache
def images(sided: bool) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose doubted half is large. sided: it has another mean in each class; else it has either
    sign, as scenes and their mirror images have."""
    stream = np.random.default_rng(0)
    labels = stream.integers(CLASSES, size=N).astype(np.int32)
    means = stream.normal(size=(CLASSES, D))
    rows = means[labels] + stream.normal(size=(N, D))
    if not sided:
        rows[:, DOUBTED] *= stream.choice([-1, 1], size=(N, 1))
    return np.float32(rows / np.linalg.norm(rows, axis=1, keepdims=True)), labels


def procedure(sided: bool) -> FeatureCovariance:
    """As the command line makes it."""
    rows, labels = images(sided)
    return FeatureCovariance(rows.copy(), labels, CLASSES, GROUPS, 2.0, overwrite=True)


def finished(method: FeatureCovariance, **how: object) -> State:
    with Ledger.temporary(1e-5, 100.0) as ledger:
        return run(method, ledger, KEY, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("sided", [True, False])
def test_what_tells_classes_apart_is_kept_and_nothing_else(sided: bool) -> None:
    """The noise is that of a fixed key; what is kept stands 40 deviations out of it."""
    method = procedure(sided)
    state = finished(method)
    expected = np.ones(D)
    expected[DOUBTED] = sided
    assert np.array_equal(state["kept"], expected)
    seen = method.transform(images(sided)[0].copy(), state)
    assert np.allclose(np.linalg.norm(seen, axis=1), 1, atol=1e-4), "the rest takes their norm"
    assert bool(np.any(seen[:, DOUBTED])) == sided


@pytest.mark.parametrize("sided", [True, False])
def test_of_findings_the_same(sided: bool) -> None:
    rows, labels = images(sided)
    findings = np.eye(CLASSES, dtype=np.int32)[labels]
    findings[::5, 0] = UNKNOWN
    state = finished(FeatureCovariance(rows, findings, CLASSES, GROUPS, 2.0))
    assert bool(state["kept"][DOUBTED].all()) == bool(state["kept"][DOUBTED].any()) == sided


def test_noise_is_taken_to_be_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows of zeros a release is noise alone. False alarms: 1e-9."""
    seen = []

    def spy(gradient: Any, noise: float, chance: float, *rest: Any) -> np.ndarray:
        seen.append((noise, chance))
        return np.ones(D, np.float32)

    monkeypatch.setattr(doubted, "kept", spy)
    zeros = np.zeros((200, D), np.float32)
    method = FeatureCovariance(zeros, np.arange(200) % CLASSES, CLASSES, GROUPS, 2.0)
    state, mechanism = method.start(), method.mechanism(FIRST_GRADIENT)
    total = method.measure(state, FIRST_GRADIENT, KEY)
    keys = map(SecretKey.from_insecure_seed, range(400))
    draws = np.array([mechanism(total, key) for key in keys])
    method.absorb(state, FIRST_GRADIENT, mechanism(total, KEY))
    ((noise, chance),) = seen
    assert has_deviation(draws, noise)
    assert chance == 200 * total.sensitivity.add_or_remove**2


@pytest.mark.parametrize("sided", [True, False])
def test_the_classifier_leaves_out_what_training_left_out(sided: bool) -> None:
    method = procedure(sided)
    state = finished(method)
    rows = images(sided)[0][:20]
    head, expected = method.head(state), method.transform(rows.copy(), state)
    scores = np.array([head(jnp.asarray(row)) for row in rows])
    assert np.allclose(scores, expected @ np.asarray(state["weight"]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stop", [FIRST_GRADIENT, FIRST_GRADIENT + 1, FIRST_GRADIENT + 2])
@pytest.mark.parametrize("sided", [True, False])
def test_a_run_stopped_about_the_decision_ends_in_the_same_bits(sided: bool, stop: int) -> None:
    states: dict[int, State] = {}
    whole = finished(
        procedure(sided), after_step=lambda done, state: states.setdefault(done, state)
    )
    again = finished(procedure(sided), state=states[stop], first=stop)
    assert all(np.array_equal(whole[name], again[name]) for name in ("weight", "velocity", "kept"))


def test_the_decision_is_made_by_what_was_released_and_by_nothing_else() -> None:
    """The same releases lead to the same state, whatever rows they were made of."""
    methods = [procedure(True), procedure(False)]
    released, state = [], methods[0].start()
    for step in (MEAN, MOMENTS, FIRST_GRADIENT):
        total = methods[0].measure(state, step, KEY)
        released.append(methods[0].mechanism(step)(total, KEY))
        state = methods[0].absorb(state, step, released[-1])
    found = []
    for method in methods:
        state = method.start()
        for step, each in enumerate(released):
            state = method.absorb(state, step, each)
        found.append(np.asarray(state["kept"]))
    assert np.array_equal(*found) and found[0].all()


def test_noise_alone_is_hardly_ever_taken_for_a_proof() -> None:
    """Of 2,000 draws of pure noise, from a fixed seed; 4 deviations of a chi-squared number with 24 and
    with 720 degrees of freedom are passed in .1 % and .01 % of draws."""
    stream = np.random.default_rng(1)
    for size, most in ((4, 8), (120, 2)):
        groups = (Group(2, size, 1.0, doubted=1),)
        draws = stream.normal(scale=3.0, size=(2_000, 2 * size, 6))
        kept = [doubted.kept(each, 3.0, 0.0, groups, 4.0)[-1] for each in draws]
        assert sum(kept) <= most
        assert doubted.kept(1.5 * draws[0], 3.0, 0.0, groups, 4.0)[:size].all(), "not doubted"


def test_without_noise_or_doubt_all_is_kept() -> None:
    bare = FeatureCovariance(*images(False), CLASSES, GROUPS, 2.0, bare=True)
    certain = FeatureCovariance(*images(False), CLASSES, (Group(1, D, 1.0),), 2.0)
    assert "kept" not in bare.start() and "kept" not in certain.start()
    assert doubted.kept(np.zeros((D, 2)), 0.0, 0.0, (Group(1, D, 1.0),), 4.0).all()


def test_left_and_right_are_doubted_where_the_name_says_so() -> None:
    for name, expected in (("handed", 0), ("handed-if-shown", 15)):
        (group,) = by_name.features(f"centered-{name}", (32, 32, 3)).groups
        assert group.doubted == expected and group.frequencies == 30
        joined = by_name.features(f"centered-cells+{name}", (32, 32, 3)).groups
        assert [each.doubted for each in joined] == [0, expected]
    one, other = (
        by_name.features(f"centered-{each}", (8, 8, 3)) for each in ("handed", "handed-if-shown")
    )
    image = jnp.asarray(np.random.default_rng(0).random((8, 8, 3)), jnp.float32)
    assert np.array_equal(one(image), other(image))


def test_plans_of_earlier_versions_keep_everything() -> None:
    ours = typed_json.plain(rule(1_000, D, 1.0))
    assert ours.pop("proof") == 4
    earlier = typed_json.convert(CovarianceSettings, ours, "settings")
    assert earlier.proof == 0
    assert "kept" not in FeatureCovariance(*images(False), CLASSES, GROUPS, 1.0, earlier).start()


@pytest.mark.slow
def test_a_run_says_what_became_of_the_sides(folder: Path, tmp_path: Path) -> None:
    """24 images show nothing at epsilon 1; a network has no sides to tell of."""
    flags = ("--data", folder, "--epsilon", 1, "--log", "json")
    told = succeeds(
        "train", *flags, "--model", "centered-cells+handed-if-shown", "--out", tmp_path / "run"
    )
    (line,) = [json.loads(line) for line in told.splitlines() if '"sides"' in line]
    assert line["sides"].startswith("made alike")
    assert '"sides"' not in succeeds(*train_arguments(folder, tmp_path / "other"))
