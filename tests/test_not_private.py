"""`--epsilon inf` and `--rehearse B`: every method without noise and clip, marked wherever an epsilon is
shown, never by a slip, and never out of an honest run or back into one."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pace import paced
from run_helpers import FULL_BATCH, N, ctrl_c_after, sfumato, succeeds, train_arguments
from test_method_laws import CLASSES, DELTA, LABELS, OPTIONS, ROWS, bare, dpsgd, same
from test_shipped import EACH, KEY, flat, images, job
from test_shipped import METHODS as SHIPPED

import sfumato as sf
from sfumato.clip import BoundedSum, Sensitivity, clipped_grad
from sfumato.core import typed_json
from sfumato.data.source import DataInfo
from sfumato.noise import NOISES
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, TrainConfig, asked_in
from sfumato.plan.making import make_plan
from sfumato.plan.methods import METHODS
from sfumato.plan.plan import Plan
from sfumato.privacy import accountants, events, relations
from sfumato.privacy.events import CyclicPoissonEvent, GaussianEvent, PoissonSampledEvent
from sfumato.privacy.not_private import MARK, NotPrivateEvent
from sfumato.privacy.risks import risks
from sfumato.report.facts import RunFacts

INF = math.inf
PLAIN = GaussianEvent(2.0)
BARE = NotPrivateEvent(PLAIN, 0.0)
MODEL = "model-not-private.safetensors"


def plan_of(method: MethodConfig, privacy: PrivacyConfig) -> Plan:
    source = images()
    info = DataInfo("arrays", "memory", source.class_names, source.shape, {"train": len(source)})
    return make_plan(TrainConfig(DataConfig("arrays"), privacy, method), info)


# -- the event and its price


@pytest.mark.parametrize("event", [PLAIN, CyclicPoissonEvent(0.5, 3, 1, PLAIN)])
def test_what_is_not_private_has_no_price_in_any_company(event: events.Event) -> None:
    made = NotPrivateEvent(event, 0.25)
    assert events.from_json(json.loads(json.dumps(events.to_json(made)))) == made
    assert MARK in made.words and made.turns == event.turns and made.rate == event.rate
    for tally in ({made: 1}, {made: 2, PLAIN: 3, PoissonSampledEvent(0.1, PLAIN): 4}):
        for relation in ("add-or-remove-one", "zero-out", "replace-one"):
            assert accountants.epsilon(tally, 0.5, relation=relation) == INF
        assert relations.renyi_epsilon(tally, 1e-5) == INF
        assert relations.delta(tally, 100.0) == 1.0
        assert relations.true_positive_rate(tally, 0.01) == 1.0
        found = risks(tally, "add-or-remove-one")
        assert {epsilon for _, epsilon in found.curve} == {INF}
        assert "nothing is promised" in accountants.describe(tally, 1e-5)


def test_a_ledger_pays_for_private_releases_or_for_others_never_for_both(tmp_path: Path) -> None:
    with sf.Ledger.create(tmp_path / "none", delta=1e-5, epsilon_max=INF) as ledger:
        assert ledger.epsilon() == INF
        ledger.spend(BARE, "a/0", "key")
        with pytest.raises(sf.BudgetError, match="not private"):
            ledger.spend(PLAIN, "a/1", "key")
        with pytest.raises(sf.BudgetError, match="not private"):
            ledger.authorize({PLAIN: 1}, "other")
    with sf.Ledger.create(tmp_path / "some", delta=1e-5, epsilon_max=1e9) as ledger:
        with pytest.raises(sf.BudgetError, match="not private"):
            ledger.spend(BARE, "a/0", "key")
        ledger.spend(PLAIN, "a/0", "key")
    none, some = sf.Ledger.read(tmp_path / "none"), sf.Ledger.read(tmp_path / "some")
    assert (none.releases, none.private, none.epsilon()) == (1, False, INF)
    assert (some.releases, some.private) == (1, True) and some.epsilon() < 10


# -- sums without a clip


@pytest.mark.parametrize("method", ["book_keeping", "two_pass", "materialize"])
@pytest.mark.parametrize("normalized", [False, True])
def test_an_infinite_clip_norm_sums_the_gradients_as_they_are(
    method: str, normalized: bool
) -> None:
    def loss(params: Any, example: Any) -> Any:
        return jnp.sum(jnp.square(jnp.tanh(example @ params["w"]) + params["b"]))

    params = {"w": jnp.full((4, 3), 0.3), "b": jnp.full(3, 40.0)}
    batch = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
    batch = batch.at[2].set(jnp.nan)
    mask = jnp.array([True] * 5 + [False])
    clipped = clipped_grad(loss, INF, method=method, normalized=normalized)
    found = clipped(params, batch, mask)
    kept = [jax.grad(loss)(params, batch[k]) for k in (0, 1, 3, 4)]
    wanted = jax.tree.map(lambda *leaves: sum(leaves), *kept)
    assert found.sensitivity == Sensitivity(INF, INF, INF)
    for name, leaf in wanted.items():
        np.testing.assert_allclose(found.value[name], leaf, rtol=1e-4)
    assert clipped_grad(loss, 1.0, normalized=normalized).unclipped().sensitivity.zero_out == INF


@pytest.mark.parametrize("noise", NOISES)
def test_no_noise_hides_what_is_not_clipped(noise: str) -> None:
    total = BoundedSum(np.ones(3, np.float32), Sensitivity.of_contribution(INF))
    with pytest.raises(sf.ArgumentError, match="no noise hides"):
        NOISES[noise](1.0).bind(total, KEY)


def test_noise_of_nothing_and_noise_on_unclipped_sums_are_refused_with_the_way_out() -> None:
    for make in (sf.Gaussian, sf.LatticeGaussian, GaussianEvent):
        with pytest.raises(sf.ArgumentError, match="--epsilon inf"):
            make(0.0)
    with pytest.raises(sf.ArgumentError, match="no noise hides"):
        sf.calibrate(dpsgd(clip_norm=INF), 3.0, DELTA)
    told = sfumato(
        *["account", "--noise-multiplier", "0", "--n", "100", "--batch", "10", "--steps", "2"]
    )
    assert told.code == 2 and "--epsilon inf" in told.err and told.err.count("\n") == 1


# -- every method


@pytest.mark.parametrize("name", EACH)
def test_a_plan_without_privacy_releases_its_sums_as_they_are(name: str) -> None:
    plan = plan_of(SHIPPED[name], PrivacyConfig("inf"))
    assert plan.epsilon == plan.spends == plan.clip_norm == INF and plan.not_private is not None
    assert not any(each.event.private or each.noise_multiplier for each in plan.releases)
    assert typed_json.convert(Plan, json.loads(json.dumps(plan.to_json()))) == plan
    private = plan_of(SHIPPED[name], PrivacyConfig(8.0))
    assert [each.unprotected() for each in private.releases] == list(plan.releases)
    procedure = job(plan, images()).procedure
    assert not procedure.event(0).private
    total = procedure.measure(procedure.start(), 0, KEY.at("one"))
    mechanism = procedure.mechanism(0)
    released = mechanism.release(mechanism.bind(total, KEY.at("two")))
    np.testing.assert_array_equal(flat(released), flat(total.value).astype(np.float32))
    assert np.isfinite(flat(procedure.absorb(procedure.start(), 0, released))).all()


def test_gradients_are_not_clipped_in_what_a_user_runs() -> None:
    """The rows of an image count in full: the sum of the default method's gradients is longer than n C."""
    for name in ("dp-sgd on features", "dp-fc"):
        plan, private = (plan_of(SHIPPED[name], PrivacyConfig(each)) for each in ("inf", 8.0))
        one, two = (job(each, images()).procedure for each in (plan, private))
        state, step = one.start(), one.steps - 1
        sums = [each.measure(state, step, KEY.at("one")) for each in (one, two)]
        assert sums[0].sensitivity.add_or_remove == INF > sums[1].sensitivity.add_or_remove
        assert not np.allclose(flat(sums[0].value), flat(sums[1].value))


@pytest.mark.parametrize("name", paced(METHODS, "dp-sgd", "dp-fc", "newton", "sgd"))
def test_every_method_runs_without_privacy_and_its_run_says_so(name: str, tmp_path: Path) -> None:
    method = sf.calibrate(bare(name), INF, DELTA, unit="row")
    with sf.Ledger.temporary(DELTA, 1e6) as honest:
        with pytest.raises(sf.BudgetError, match="not private"):
            sf.run(method, honest, KEY)
        assert not honest.releases
    states = [
        sf.run(method, out=tmp_path / str(seed), **OPTIONS | {"insecure_seed": seed})
        for seed in (1, 2)
    ]
    assert same(*states), "without noise nothing hangs on the seed of the noise"
    out = tmp_path / "1"
    assert (out / MODEL).exists() and not (out / "model.safetensors").exists()
    assert sf.Ledger.read(out).epsilon() == INF
    assert json.loads((out / "result.json").read_text())["spent"]["epsilon"] == "inf"
    for page in ("report.html", "model_card.md"):
        assert MARK in (out / page).read_text(), page
    with pytest.raises(sf.RunError, match=MARK):
        sf.attack(out, method)


def test_a_stopped_run_without_privacy_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    method = sf.calibrate(dpsgd(), INF, DELTA)
    whole = sf.run(method, out=tmp_path / "whole", **OPTIONS)
    with ctrl_c_after(2), pytest.raises(KeyboardInterrupt):
        sf.run(method, out=tmp_path / "run", **OPTIONS)
    with pytest.raises(sf.RunError, match="begun with"):
        sf.run(sf.calibrate(dpsgd(), 4.0, DELTA), out=tmp_path / "run", **OPTIONS)
    assert same(sf.run(method, out=tmp_path / "run", **OPTIONS), whole)


# -- the command line


@pytest.fixture(scope="module")
def unprotected(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A complete run without privacy, and what was said of it."""
    run = tmp_path_factory.mktemp("none") / "run"
    return run, succeeds(*train_arguments(folder, run), "--epsilon", "inf")


@pytest.mark.slow
def test_whoever_meets_a_run_without_privacy_is_told(
    unprotected: tuple[Path, str], folder: Path, tmp_path: Path
) -> None:
    run, said = tmp_path / "run", unprotected[1]
    shutil.copytree(unprotected[0], run)
    assert MARK in said and MODEL in said and "epsilon" in said
    assert (run / MODEL).exists() and not (run / "model.safetensors").exists()
    assert MARK.encode() in (run / MODEL).read_bytes(), "the arrays' file lost the mark"
    privacy = json.loads((run / "model.json").read_text())["privacy"]
    assert privacy["epsilon"] == privacy["spent"] == "inf", "model.json lost the mark"
    assert MARK in privacy.get("not_private", ""), "model.json lost the mark"
    assert "epsilon inf" in succeeds("account", run) and MARK in succeeds("account", run)
    assert MARK in succeeds("explain-epsilon", run)
    report, card = (run / "report.html").read_text(), (run / "model_card.md").read_text()
    assert 'role="alert">NOT PRIVATE' in report, "the report does not begin with the mark"
    for text in (report, card):
        assert "differentially private" not in text and "Nothing. This model" in text
    refused = sfumato("audit", run)
    assert refused.code == 2 and MARK in refused.err and refused.err.count("\n") == 1
    for command in (("evaluate", run), ("predict", run, next(folder.rglob("*.png")))):
        with pytest.warns(UserWarning, match=MARK):
            succeeds(*command)
    with pytest.warns(UserWarning, match=MARK):
        sf.load(run / MODEL)
    with pytest.warns(UserWarning, match=MARK):
        succeeds("export", run, "--to", "card")
    readme = (run / "export-card-not-private" / "README.md").read_text()
    assert '"not-private"' in readme and '"void": true' in readme and MARK in readme
    with pytest.warns(UserWarning, match=MARK):
        sf.load(run / "export-card-not-private")


def test_a_run_without_privacy_has_no_other_name(tmp_path: Path) -> None:
    config = TrainConfig(DataConfig("digits"), PrivacyConfig("inf"))
    assert config.out == Path("runs/digits-not-private")
    assert TrainConfig(DataConfig("digits")).out == Path("runs/digits")


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("plan.json", {"epsilon": 3.0, "not_private": None}, "contradicts the ledger"),
        ("plan.json", {"not_private": None}, "contradicts what the plan says"),
        ("result.json", {"spent": {"epsilon": 3.0}}, "epsilon=3 at"),
    ],
)
def test_no_edit_gives_it_an_epsilon(
    unprotected: tuple[Path, str], tmp_path: Path, file: str, change: Any, says: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(unprotected[0], run)
    value = json.loads((run / file).read_text())
    for name, each in change.items():
        value[name] = value[name] | each if isinstance(each, dict) else each
    (run / file).write_text(json.dumps(value))
    with pytest.raises(sf.RunError, match=says):
        RunFacts.load(run)


def test_no_edit_makes_an_honest_run_one_without_privacy(interrupted: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(interrupted, run)
    for name in ("config.json", "plan.json"):
        value = json.loads((run / name).read_text()) | {"epsilon": "inf"}
        (run / name).write_text(json.dumps(value))
    refused = sfumato("resume", run)
    assert refused.code == 2 and "was changed since the run began" in refused.err


@pytest.mark.parametrize("epsilon", ["INF", "1e400", "nan", "-inf", "Infinity", "+inf", "0"])
def test_only_the_word_asks_for_it(epsilon: str, folder: Path, tmp_path: Path) -> None:
    refused = sfumato("train", "--data", folder, "--out", tmp_path / "run", f"--epsilon={epsilon}")
    says = "only the word inf" if float(epsilon) == INF else "greater than 0"
    assert refused.code == 2 and says in refused.err and refused.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "epsilon"),
    [
        ("a.toml", 'data = "digits"\nepsilon = "inf"', "inf"),
        ("a.json", '{"data": "digits", "epsilon": "inf"}', "inf"),
        ("b.toml", 'data = "digits"\nepsilon = inf', None),
        ("b.toml", 'data = "digits"\nepsilon = 1e400', None),
        ("b.json", '{"data": "digits", "epsilon": 1e400}', None),
        ("b.json", '{"data": "digits", "epsilon": "INF"}', None),
        ("b.json", '{"data": "digits", "clip_norm": "inf"}', None),
    ],
)
def test_a_file_of_settings_says_the_word_too(
    name: str, text: str, epsilon: str | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    if epsilon is not None:
        assert asked_in(tmp_path / name).privacy.epsilon == epsilon
        return
    with pytest.raises(sf.ArgumentError) as refused:
        asked_in(tmp_path / name).check()
    assert "\n" not in str(refused.value)


def test_choices_and_curves_are_made_with_privacy(tmp_path: Path) -> None:
    for command in ("tune", "sweep"):
        refused = sfumato(
            command, "--data", "digits", "--out", tmp_path / "run", "--epsilon", "inf"
        )
        assert refused.code == 2 and "epsilon=inf" in refused.err and refused.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


# -- rehearsals

REHEARSED = "rehearsal of epsilon=3 with batch 24: this run is not private"


@pytest.mark.slow
def test_a_rehearsal_keeps_all_but_batch_and_noise_whose_ratio_stays(
    folder: Path, tmp_path: Path
) -> None:
    asked, run = (*train_arguments(folder, tmp_path / "run"), "--rehearse", 6), tmp_path / "run"
    assert REHEARSED in succeeds(*asked, "--dry-run", "--no-estimate") and not run.exists()
    assert REHEARSED in succeeds(*asked)
    method = MethodConfig("dp-sgd", "cnn", steps=4, batch=N)
    real, small = (
        plan_of(method, privacy) for privacy in (PrivacyConfig(3.0), PrivacyConfig(3.0, rehearse=6))
    )
    ratio = small.releases[0].noise_multiplier / real.releases[0].noise_multiplier
    assert ratio == pytest.approx(6 / N) and small.sampler.expected_batch_size == pytest.approx(6)
    assert small.settings == type(real.settings)(**vars(real.settings) | {"batch": 6})
    assert small.spends == small.epsilon == INF and small.clip_norm == real.clip_norm
    assert REHEARSED in (run / "report.html").read_text() and (run / MODEL).exists()
    assert sf.Ledger.read(run).epsilon() == INF
    assert typed_json.convert(Plan, json.loads(json.dumps(small.to_json()))) == small


def test_a_rehearsal_is_noisy() -> None:
    """Its released sums are not the sums."""
    plan = plan_of(SHIPPED["dp-sgd on features"], PrivacyConfig(3.0, rehearse=6))
    procedure = job(plan, images()).procedure
    assert procedure.event(0) == plan.releases[0].event
    total, mechanism = procedure.measure(procedure.start(), 0, KEY), procedure.mechanism(0)
    noise = flat(mechanism.release(mechanism.bind(total, KEY))) - flat(total.value)
    wanted = plan.releases[0].noise_multiplier * total.sensitivity.add_or_remove
    assert noise.std() == pytest.approx(wanted, rel=0.2) and noise.size > 500


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--rehearse", 24), "smaller than the run's own"),
        (("--rehearse", 0), "whole number"),
        (("--rehearse", 6, "--epsilon", "inf"), "finite epsilon"),
        (("--rehearse", 6, "--sampler", "full"), "leave one of them out"),
        (("--batch", 12, "--rehearse", 6, "--noise-bands", 2), "independent noise"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused(
    more: tuple[object, ...], says: str, folder: Path, tmp_path: Path
) -> None:
    refused = sfumato(
        "train", "--data", folder, *FULL_BATCH, *more, "--out", tmp_path / "run", "--resize", 8
    )
    assert refused.code == 2 and says in refused.err and refused.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_only_dp_sgd_is_rehearsed(folder: Path) -> None:
    refused = sfumato("train", "--data", folder, "--resize", 8, "--rehearse", 2)
    assert refused.code == 2 and "dp-sgd" in refused.err


# -- estimators


@pytest.mark.parametrize("weights", [None, "balanced"])
def test_estimators_fit_without_privacy_and_say_so(weights: Any, tmp_path: Path) -> None:
    """Margin: no noise."""
    made = sf.DPLinearClassifier(epsilon=INF, method="ls", class_weight=weights)
    with pytest.warns(UserWarning, match=MARK):
        made.fit(ROWS, LABELS)
    assert made.epsilon_ == made.plan_.epsilon == INF
    assert made.score(ROWS, LABELS) > 0.9
    with pytest.raises(sf.ArgumentError, match="not-private"):
        made.save(tmp_path / "model.safetensors")
    made.save(tmp_path / MODEL)
    with pytest.warns(UserWarning, match=MARK):
        again = sf.DPLinearClassifier.load(tmp_path / MODEL)
    assert again.epsilon == again.epsilon_ == again.plan_.epsilon == INF
    np.testing.assert_array_equal(again.predict(ROWS), made.predict(ROWS))
    with sf.Ledger.temporary(DELTA, 10.0) as ledger, pytest.warns(UserWarning, match=MARK):
        with pytest.raises(sf.BudgetError, match="not private"):
            sf.DPLinearClassifier(epsilon=INF, ledger=ledger).fit(ROWS, LABELS)
        assert not ledger.releases


@pytest.mark.slow
def test_the_image_estimator_too() -> None:
    source = images()
    pixels = source.raw(np.arange(len(source)))
    made = sf.DPImageClassifier(epsilon=INF, method="ls", model="scattering")
    with pytest.warns(UserWarning, match=MARK):
        made.fit(pixels, source.labels)
    assert made.epsilon_ == INF and len(made.classes_) == CLASSES
