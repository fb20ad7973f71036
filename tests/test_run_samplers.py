"""Every sampler and every relation of neighborhood from the command line: plan, run, ledger, report
and account agree."""

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_helpers import NETWORK, N, ctrl_c_after, refused, sfumato, succeeds
from scipy import stats

from sfumato import sampling
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.plan.config import DataConfig, MethodConfig, PrivacyConfig, TrainConfig, read_config
from sfumato.plan.plan import Plan, read_plan
from sfumato.plan.spending import sampler_for
from sfumato.privacy import accountants, events
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent, SelectedEvent
from sfumato.privacy.ledger import Ledger
from sfumato.privacy.neighbors import ADD_OR_REMOVE, RELATIONS, REPLACE_ONE, ZERO_OUT
from sfumato.privacy.releases import Release, tally_of
from sfumato.report import RunFacts, as_text, privacy_statement
from sfumato.runs.jobs import build
from sfumato.runs.progress import Quiet
from sfumato.runs.training import open_splits, plan_for
from sfumato.sampling import CyclicPoisson, FullBatch, Poisson, TruncatedPoisson, WithoutReplacement
from sfumato.train import loop

STEPS, BATCH = 5, 4
FLAGS: dict[str, tuple[object, ...]] = {
    "poisson": ("--batch", BATCH, "--sampler", "poisson"),
    "truncated": ("--batch", BATCH, "--sampler", "truncated", "--truncate", 9),
    "cyclic": ("--batch", BATCH, "--sampler", "cyclic", "--cycle", 3),
    "fixed": ("--batch", BATCH, "--sampler", "fixed"),
    "full": ("--sampler", "full"),
}
SAMPLERS = {
    "poisson": Poisson(BATCH / N, STEPS, N),
    "truncated": TruncatedPoisson(BATCH / N, STEPS, N, 9),
    "cyclic": CyclicPoisson(3 * BATCH / N, STEPS, N, 3),
    "fixed": WithoutReplacement(BATCH, STEPS, N),
    "full": FullBatch(STEPS, N),
}
WORDS = {
    "poisson": "every image takes part independently with probability q = 0.1667 (Poisson sampling, 4 images expected)",
    "truncated": "of more than 9, that many are kept at random; ε includes what this costs",
    "cyclic": "in 3 fixed groups that take turns. In each step every image of one group takes part independently with "
    "probability q = 0.5 (cyclic",
    "fixed": "In each step 4 of the 24 images take part, drawn at random without repetition",
    "full": "Every step uses all 24 images",
}
NEIGHBORS = {
    ADD_OR_REMOVE: (
        "one image is in the training set or is not",
        "by adding or removing one image",
        "add or remove one image",
    ),
    ZERO_OUT: (
        "counts or counts as nothing",
        "by making one image count as nothing",
        "zero out one image",
    ),
    REPLACE_ONE: (
        "one image of the training set is exchanged for any other",
        "by replacing one image",
        "replace one image",
    ),
}
PAIRS = [
    (name, relation)
    for name in FLAGS
    for relation in RELATIONS
    if (name, relation) != ("fixed", ADD_OR_REMOVE)
]
QUICK = {("cyclic", REPLACE_ONE)}
EACH = [pytest.param(*pair, marks=[] if pair in QUICK else [pytest.mark.slow]) for pair in PAIRS]


def arguments(folder: Path, out: Path, *more: object) -> tuple[object, ...]:
    return (
        "train",
        "--data",
        folder,
        *NETWORK,
        "--steps",
        STEPS,
        "--epsilon",
        1,
        "--log",
        "quiet",
        "--out",
        out,
        *more,
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# -- the law: all that is said of a run is one thing


@pytest.mark.parametrize(("name", "relation"), EACH)
def test_plan_procedure_ledger_report_and_account_agree(
    folder: Path, tmp_path: Path, name: str, relation: str
) -> None:
    run = tmp_path / "run"
    told = succeeds(*arguments(folder, run, *FLAGS[name], "--relation", relation))
    written, plan = read(run / "plan.json"), read_plan(run / "plan.json")
    assert json.loads(json.dumps(plan.to_json())) == written
    assert plan.sampler == SAMPLERS[name] and plan.relation == relation

    config = read_config(run / "config.json")
    procedure = build(
        plan, open_splits(config).train, None, 0, SecretKey.from_entropy(), Quiet()
    ).procedure
    ledger = Ledger.read(run)
    law = Counter(
        SAMPLERS[name].event(GaussianEvent(plan.releases[0].noise_multiplier), step)
        for step in range(STEPS)
    )
    assert (
        plan.tally == loop.tally(procedure) == ledger.tally == law
        and sum(law.values()) == STEPS == ledger.releases
    )

    spent = accountants.epsilon(law, plan.delta, relation=relation)
    assert ledger.relation == relation and ledger.epsilon() == plan.spends == spent
    assert 0.97 < spent <= ledger.epsilon_max == 1
    assert read(run / "result.json")["spent"]["epsilon"] == spent
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])[
        "epsilon"
    ] == pytest.approx(spent, rel=0.02)

    for file in run.iterdir():  # account needs the ledger and nothing else
        if file.name != "ledger.jsonl":
            file.unlink()
    accounted = succeeds("account", run)
    assert f"epsilon {spent:.6g} at delta" in accounted and relation in accounted
    assert NEIGHBORS[relation][2] in told


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("relation", RELATIONS)
def test_the_statement_says_who_takes_part_and_who_is_whose_neighbor(
    finished: Path, name: str, relation: str
) -> None:
    facts = RunFacts.load(finished)
    plan = replace(facts.plan, sampler=SAMPLERS[name], relation=relation)
    told = as_text(privacy_statement(replace(facts, plan=plan)))
    told = told.replace("\N{NO-BREAK SPACE}", " ")
    assert WORDS[name] in told and sum(words in told for words in WORDS.values()) == 1
    for words in NEIGHBORS[relation][:2]:
        assert words in told
    assert ("which of two given images" in told) == (relation == REPLACE_ONE)


def test_a_report_for_another_relation_than_the_ledgers_is_refused(
    finished: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "plan.json").write_text(json.dumps(read(run / "plan.json") | {"relation": REPLACE_ONE}))
    refused(tmp_path, "report", run, says=("plan.json", REPLACE_ONE, ADD_OR_REMOVE))


# -- stopped and resumed


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True])
def test_a_cyclic_run_is_resumed_to_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    """old: stopped runs of versions that knew no events in plans and no relation there, with
    Poisson samples."""
    flags = (
        *(FLAGS["poisson"] if old else FLAGS["cyclic"]),
        "--insecure-seed",
        1,
        "--checkpoint-seconds",
        1e-6,
    )
    whole, run = tmp_path / "whole", tmp_path / "run"
    with monkeypatch.context() as patch:
        if old:
            now = Plan.to_json
            patch.setattr(Plan, "to_json", lambda plan: as_it_was(now(plan)))
        succeeds(*arguments(folder, whole, *flags))
        with ctrl_c_after(3):
            assert sfumato(*arguments(folder, run, *flags)).code == 130
    assert Ledger.read(run).releases == 3
    succeeds("resume", run)
    for name in ("model.safetensors", "evaluation.json", "plan.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert Ledger.read(run).tally == Ledger.read(whole).tally == read_plan(run / "plan.json").tally


def as_it_was(plan: dict[str, Any]) -> dict[str, Any]:
    """plan.json as written before releases had events."""
    for release in plan["releases"]:
        del release["event"]
    return plan


def test_plans_without_events_are_read() -> None:
    gaussian = GaussianEvent(2.5)
    for event in (gaussian, PoissonSampledEvent(0.1, gaussian), SelectedEvent(gaussian, 7.0)):
        release = Release("gradient", 3, event, "what")
        value = release.to_json()
        assert Release.from_json(value) == release
        del value["event"]
        assert Release.from_json(value) == release


def test_a_ledger_without_a_relation_means_add_or_remove(tmp_path: Path) -> None:
    from sfumato.privacy import ledger

    with Ledger.create(tmp_path, delta=1e-5, epsilon_max=9.0) as book:
        path = book.path
    opening = json.loads(path.read_text())
    bare = {name: value for name, value in opening.items() if name not in ("relation", "hash")}
    path.write_bytes(ledger._canonical(ledger._seal(bare, ledger._NO_HASH)) + b"\n")
    with Ledger.open(tmp_path) as book:
        book.spend(GaussianEvent(3.0))
    again = Ledger.read(tmp_path)
    assert again.relation == ADD_OR_REMOVE
    assert f"epsilon {accountants.epsilon({GaussianEvent(3.0): 1}, 1e-5):.6g} at" in succeeds(
        "account", tmp_path
    )


# -- releases, samplers and their JSON


ANY_EVENT = st.sampled_from(
    [
        GaussianEvent(2.0),
        PoissonSampledEvent(0.3, GaussianEvent(2.0)),
        SelectedEvent(GaussianEvent(2.0), 3.0),
        *(sampler.event(GaussianEvent(2.0), 1) for sampler in SAMPLERS.values()),
        *(
            CyclicPoisson(0.2, 100, 60, cycle).event(GaussianEvent(2.0), 5)
            for cycle in (1, 2, 7, 60)
        ),
    ]
)


@given(ANY_EVENT, st.integers(1, 200))
def test_a_release_is_as_often_as_it_says_and_its_groups_differ_by_one_at_most(
    event: Any, count: int
) -> None:
    release = Release("gradient", count, event, "what")
    assert (
        release.tally == Counter(release.event_at(k) for k in range(count)) == tally_of([release])
    )
    assert (
        sum(release.tally.values()) == count
        and max(release.tally.values()) - min(release.tally.values()) <= 1
    )
    assert Release.from_json(json.loads(json.dumps(release.to_json()))) == release
    assert tally_of([release, release]) == {
        each: 2 * times for each, times in release.tally.items()
    }
    louder = release.with_noise(5.0)
    assert (
        louder.noise_multiplier == 5
        and louder.with_noise(2.0) == release
        and louder.rate == release.rate
    )


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 100])
def test_the_releases_of_a_plan_are_the_events_of_its_sampler(name: str, steps: int) -> None:
    sampler, gaussian = replace(SAMPLERS[name], steps=steps), GaussianEvent(1.5)
    release = Release("gradient", steps, sampler.event(gaussian), "what")
    assert release.tally == Counter(sampler.event(gaussian, step) for step in range(steps))
    assert sampling.from_json(json.loads(json.dumps(sampler.to_json())), N, steps) == sampler
    assert all(events.from_json(events.to_json(each)) == each for each in release.tally)


@given(st.integers(10, 10**6), st.floats(1e-3, 0.9))
def test_batches_are_cut_five_deviations_above_the_mean_if_nobody_says_otherwise(
    n: int, rate: float
) -> None:
    batch = max(1, min(n - 1, round(rate * n)))
    sampler = sampler_for(MethodConfig(sampler="truncated"), batch, 3, n, ADD_OR_REMOVE)
    assert isinstance(sampler, TruncatedPoisson) and sampler.expected_batch_size == pytest.approx(
        batch
    )
    deviation = (batch * (1 - batch / n)) ** 0.5
    assert sampler.maximum == n or 5 * deviation <= sampler.maximum - batch < 5 * deviation + 1.001


@pytest.mark.parametrize("n", [1, 10, 20, 23, 24, 25, 100])
@pytest.mark.parametrize("name", FLAGS)
def test_a_sampler_moved_to_other_examples_costs_no_more(name: str, n: int) -> None:
    """An audit trains on a few examples more or less, under the claim of the run."""
    sampler, gaussian = SAMPLERS[name], GaussianEvent(2.0)
    other = sampler.moved(n)
    assert (other.n, other.steps, type(other)) == (n, STEPS, type(sampler)) and sampler.moved(
        N
    ) == sampler
    if isinstance(sampler, TruncatedPoisson):
        cut = [stats.binom.sf(each.maximum, each.n, each.rate) for each in (sampler, other)]
        assert cut[1] <= cut[0]
    if n >= BATCH:
        relation = REPLACE_ONE if name == "fixed" else ADD_OR_REMOVE
        spent = [
            accountants.epsilon(
                Counter(each.event(gaussian, step) for step in range(STEPS)), 1e-3, 1e-3, relation
            )
            for each in (sampler, other)
        ]
        assert spent[1] <= spent[0] * (1 + 1e-9)


# -- refusals


REFUSED: list[tuple[tuple[object, ...], tuple[str, ...]]] = [
    (
        ("--sampler", "fixed", "--batch", 4),
        ("sampler='fixed'", "--relation zero-out or replace-one"),
    ),
    (("--sampler", "cyclic", "--batch", 4), ("cycle=None", "--cycle K")),
    (
        ("--sampler", "cyclic", "--batch", 4, "--cycle", 7),
        ("cycle=7", "at most 6 groups", "smaller --batch"),
    ),
    (("--sampler", "cyclic", "--batch", 4, "--cycle", 0), ("cycle=0", "at least 1")),
    (("--sampler", "truncated", "--batch", N), ("batch=24", "--sampler full")),
    (("--sampler", "truncated", "--batch", 4, "--truncate", 0), ("truncate=0", "at least 1")),
    (("--sampler", "full", "--batch", 4), ("batch=4", "all n=24")),
    (
        ("--sampler", "poisson", "--batch", 4, "--truncate", 8),
        ("truncate=8", "--sampler truncated"),
    ),
    (("--batch", 4, "--cycle", 2), ("cycle=2", "--sampler cyclic")),
    (("--sampler", "fixed", "--batch", 25, "--relation", "zero-out"), ("batch=25", "n=24")),
    (("--sampler", "shuffled"), ("shuffled",)),
    (("--relation", "user-level"), ("user-level",)),
]


@pytest.mark.parametrize(
    ("flags", "says"), REFUSED, ids=[" ".join(map(str, each[0])) for each in REFUSED]
)
def test_what_has_no_price_or_no_sense_is_refused_before_anything_is_spent(
    folder: Path, tmp_path: Path, flags: tuple[object, ...], says: tuple[str, ...]
) -> None:
    refused(tmp_path, *arguments(folder, tmp_path / "run", *flags), says=says)


@pytest.mark.parametrize(
    ("method", "flags"),
    [
        ("dp-fc", ("--sampler", "poisson")),
        ("fc", ("--truncate", "9")),
        ("ls", ("--cycle", "3")),
        ("sgd", ("--sampler", "full")),
    ],
)
def test_methods_without_a_choice_of_sampler_refuse_one(
    folder: Path, tmp_path: Path, method: str, flags: tuple[str, str]
) -> None:
    refused(
        tmp_path,
        "train",
        "--data",
        folder,
        "--method",
        method,
        "--model",
        "scattering",
        *flags,
        "--out",
        tmp_path / "run",
        says=(flags[0].strip("-"), method, "no such setting"),
    )


def test_the_python_face_refuses_alike() -> None:
    with pytest.raises(ArgumentError, match="fixed"):
        sampler_for(MethodConfig(sampler="fixed"), 4, 3, N, ADD_OR_REMOVE)
    assert sampler_for(MethodConfig(sampler="fixed"), 4, 3, N, ZERO_OUT) == WithoutReplacement(
        4, 3, N
    )
    assert sampler_for(MethodConfig(), N, 3, N, ADD_OR_REMOVE) == FullBatch(3, N)
    assert sampler_for(MethodConfig(), 4, 3, N, ADD_OR_REMOVE) == Poisson(4 / N, 3, N)


# -- other methods know the relation too


@pytest.mark.slow
def test_a_linear_head_under_replace_one_has_twice_the_noise(folder: Path, tmp_path: Path) -> None:
    run, noise = tmp_path / "run", {}
    for relation in RELATIONS:
        privacy = PrivacyConfig(epsilon=3.0, relation=relation)
        plan = plan_for(
            TrainConfig(DataConfig(str(folder)), privacy, MethodConfig("means", "scattering"))
        )
        noise[relation] = [each.noise_multiplier for each in plan.releases]
        assert (
            2.99
            < plan.spends
            == accountants.epsilon(plan.tally, plan.delta, relation=relation)
            <= 3
        )
    assert noise[ZERO_OUT] == noise[ADD_OR_REMOVE]
    assert noise[REPLACE_ONE] == pytest.approx(
        [2 * each for each in noise[ADD_OR_REMOVE]], rel=1e-6
    )

    succeeds(
        "train",
        "--data",
        folder,
        "--method",
        "means",
        "--model",
        "scattering",
        "--log",
        "quiet",
        "--out",
        run,
        "--relation",
        REPLACE_ONE,
    )
    plan, ledger = read_plan(run / "plan.json"), Ledger.read(run)
    assert [each.noise_multiplier for each in plan.releases] == noise[REPLACE_ONE]
    assert (
        ledger.relation == REPLACE_ONE
        and ledger.tally == plan.tally
        and ledger.epsilon() == plan.spends
    )
    assert f"epsilon {ledger.epsilon():.6g} at" in succeeds("account", run)
