"""Laws of the solver on features: what is released, how far one row can move it, and that a run can
stop anywhere."""

from pathlib import Path

import jax
import numpy as np
import pytest
from chance import has_deviation

from sfumato.clip import clipped_grad
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.features.feature_map import Group
from sfumato.privacy.accountants import epsilon
from sfumato.privacy.calibration import gaussian_mu_for
from sfumato.privacy.ledger import Ledger
from sfumato.solve.covariance_settings import rule
from sfumato.solve.fc import FIRST_GRADIENT, MEAN, MOMENTS, FeatureCovariance, whitening_matrices
from sfumato.solve.statistics import _moments, softmax_gradient
from sfumato.train.loop import run, tally

GROUPS = (Group(2, 3, 0.6, doubted=1), Group(1, 4, 0.4))
D, CLASSES = 10, 3


def toy(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows with the groups' norms, around one direction per class, plus a large common part."""
    stream = np.random.default_rng(seed)
    labels = stream.integers(CLASSES, size=n).astype(np.int32)
    rows = 2 + stream.normal(size=(CLASSES, D))[labels] + 0.3 * stream.normal(size=(n, D))
    return unit_groups(rows), labels


def unit_groups(rows: np.ndarray) -> np.ndarray:
    parts, start = [], 0
    for group in GROUPS:
        part = rows[:, start : start + group.size]
        parts.append(part / np.linalg.norm(part, axis=1, keepdims=True) * np.sqrt(group.weight))
        start += group.size
    return np.concatenate(parts, axis=1).astype(np.float32)


def procedure(
    rows: np.ndarray, labels: np.ndarray, mu: float = 1.0, **options: bool
) -> FeatureCovariance:
    return FeatureCovariance(rows, labels, CLASSES, GROUPS, mu, rule(len(rows), D, mu), **options)


def ledger_for(solver: FeatureCovariance, directory: object) -> Ledger:
    return Ledger.create(str(directory), delta=1e-5, epsilon_max=epsilon(tally(solver), 1e-5))


def flat(tree: object) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


@pytest.mark.parametrize(
    "n, d, mu", [(1_000, 50, 2.0), (50_000, 6_633, 0.03), (50_000, 6_633, 1.8), (10**7, 100, 0.5)]
)
def test_the_releases_compose_to_the_budget_and_not_above_it(n: int, d: int, mu: float) -> None:
    recipe = rule(n, d, mu)
    spent = (
        recipe.mean_noise(mu) ** -2
        + recipe.moments_noise(mu) ** -2
        + recipe.steps * recipe.gradient_noise(mu) ** -2
    )
    assert mu**2 * (1 - 1e-9) < spent <= mu**2


def test_epsilon_of_the_whole_procedure_is_the_promise() -> None:
    mu = gaussian_mu_for(3.0, 1e-5)
    solver = procedure(*toy(100), mu=mu)
    assert 3.0 * 0.9999 < epsilon(tally(solver), 1e-5) <= 3.0


@pytest.mark.parametrize("step", [MEAN, MOMENTS, FIRST_GRADIENT, FIRST_GRADIENT + 5])
def test_one_row_moves_a_sum_by_at_most_its_sensitivity(step: int, tmp_path: object) -> None:
    rows, labels = toy(60)
    reference = procedure(rows, labels)
    key = SecretKey.from_insecure_seed(1)
    states = {}
    run(
        reference,
        ledger_for(reference, tmp_path),
        key,
        after_step=lambda done, state: states.setdefault(done, state),
    )
    state = states.get(step, reference.start())
    extremes = [
        np.eye(D)[0],
        -np.eye(D)[7],
        np.full(D, 1e6),
        np.full(D, np.nan),
        np.full(D, np.inf),
        np.zeros(D),
    ]
    whole = procedure(rows, labels).measure(state, step, key)
    for extra in extremes:
        more = np.concatenate([rows, extra[None].astype(np.float32)])
        changed = FeatureCovariance(
            more, np.append(labels, 1).astype(np.int32), CLASSES, GROUPS, 1.0, reference.settings
        )
        moved = flat(changed.measure(state, step, key).value) - flat(whole.value)
        assert np.linalg.norm(moved) <= whole.sensitivity.add_or_remove * (1 + 1e-4)


def test_the_moments_bound_is_reached() -> None:
    """sqrt(sum of weight^2) is not merely safe: a row concentrated in one block per group attains
    it."""
    row = np.zeros((1, D), np.float32)
    row[0, 0], row[0, 6] = np.sqrt(0.6), np.sqrt(0.4)
    solver = procedure(row, np.zeros(1, np.int32))
    solver._stage = MOMENTS  # the row as if centered already
    total = solver.measure(solver.start(), MOMENTS, SecretKey.from_insecure_seed(0))
    assert np.linalg.norm(flat(total.value)) == pytest.approx(
        total.sensitivity.add_or_remove, rel=1e-3
    )


@pytest.mark.parametrize("step", [MEAN, MOMENTS, FIRST_GRADIENT])
def test_released_noise_has_the_promised_scale(step: int) -> None:
    """With all rows zero a release is noise alone; a tenth less noise would fail. False alarms:
    1e-9."""
    rows = np.zeros((5, D), np.float32)
    solver = procedure(rows, np.zeros(5, np.int32))
    mechanism = solver.mechanism(step)
    total = solver.measure(solver.start(), step, SecretKey.from_insecure_seed(0))
    draws = [flat(mechanism(total, SecretKey.from_insecure_seed(seed))) for seed in range(400)]
    assert has_deviation(np.array(draws), mechanism.multiplier * total.sensitivity.add_or_remove)


@pytest.mark.parametrize("stop", [0, 1, 2, 7, 21])
def test_a_run_stopped_anywhere_ends_in_the_same_bits(stop: int, tmp_path: object) -> None:
    rows, labels = toy(300)
    key = SecretKey.from_insecure_seed(3)
    states = {}
    solver = procedure(rows, labels)
    whole = run(
        solver,
        ledger_for(solver, tmp_path),
        key,
        after_step=lambda done, state: states.setdefault(done, state),
    )
    again = procedure(rows.copy(), labels, overwrite=True)
    with Ledger.create(f"{tmp_path}/again", delta=1e-5, epsilon_max=10.0) as ledger:
        resumed = run(again, ledger, key, state=states.get(stop), first=stop)
    assert np.array_equal(flat(whole), flat(resumed))


def test_it_learns_and_the_common_part_is_removed(tmp_path: object) -> None:
    rows, labels = toy(4_000)
    solver = procedure(rows, labels, mu=2.0)
    state = run(solver, ledger_for(solver, tmp_path), SecretKey.from_insecure_seed(0))
    head = jax.vmap(solver.head(state))
    assert np.mean(np.argmax(head(rows), 1) == labels) > 0.9
    assert np.abs(np.asarray(state["mean"]) - rows.mean(0)).max() < 0.02


def test_rows_are_left_alone_unless_overwriting_is_allowed(tmp_path: object) -> None:
    rows, labels = toy(100)
    before = rows.copy()
    solver = procedure(rows, labels)
    run(solver, ledger_for(solver, tmp_path), SecretKey.from_entropy())
    assert np.array_equal(rows, before)


def test_whitening_survives_a_matrix_of_pure_noise() -> None:
    noise = jax.random.normal(jax.random.key(0), (2, 5, 5))
    matrices = whitening_matrices(noise + noise.swapaxes(1, 2), 1.0, rule(100, 10, 1.0))
    assert np.all(np.isfinite(matrices))
    assert np.all(np.linalg.eigvalsh(np.asarray(matrices)) > 0)


def test_a_procedure_can_be_run_twice_unless_it_overwrites_its_rows(tmp_path: Path) -> None:
    rows, labels = toy(100)
    solver = procedure(rows, labels)
    first = run(solver, ledger_for(solver, tmp_path / "a"), SecretKey.from_insecure_seed(1))
    assert np.array_equal(
        flat(first),
        flat(run(solver, ledger_for(solver, tmp_path / "b"), SecretKey.from_insecure_seed(1))),
    )
    hungry = procedure(rows.copy(), labels, overwrite=True)
    run(hungry, ledger_for(hungry, tmp_path / "c"), SecretKey.from_entropy())
    with pytest.raises(ArgumentError, match="overwrite"):
        run(hungry, ledger_for(hungry, tmp_path / "d"), SecretKey.from_entropy())


def test_every_product_after_the_clip_is_exact() -> None:
    """On accelerators a default float32 product rounds its factors, and contributions would pass
    the bound."""
    batch = (jax.numpy.ones((4, D)), jax.numpy.zeros(4, int))
    mask = jax.numpy.ones(4, bool)
    softmax = jax.make_jaxpr(softmax_gradient(1.0))(
        {"weight": jax.numpy.ones((D, CLASSES))}, batch, mask
    )
    assert str(softmax.eqns[-1].params.get("precision") or softmax).count("HIGHEST") >= 1
    generic = clipped_grad(lambda params, row: (params * row).sum(), 1.0)
    assert "HIGHEST" in str(jax.make_jaxpr(generic)(jax.numpy.ones(D), batch[0], mask))
    assert "HIGHEST" in str(jax.make_jaxpr(_moments, static_argnums=2)(batch[0], mask, GROUPS))
