"""A sampler with an event of its own and a noise mechanism, each one file outside of the package:
through the laws of their rooms, and from the command line through every command."""

import ast
import json
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import test_samplers
from plugins.halves import Halves
from plugins.stratified import Stratified, StratifiedEvent
from run_helpers import FULL_BATCH, NETWORK, N, ctrl_c_after, refused, sfumato, succeeds
from test_sampling_noise import MULTIPLIER, check_noise_law

import sfumato as package
from sfumato.core import plugins
from sfumato.core.errors import ArgumentError, LedgerError
from sfumato.noise import BandedGaussian, Gaussian
from sfumato.noise.banded import square_root_bands
from sfumato.plan.plan import read_plan
from sfumato.privacy import accountants, event_base, events
from sfumato.privacy.events import FixedSizeEvent, GaussianEvent
from sfumato.privacy.ledger import Ledger
from sfumato.privacy.neighbors import ADD_OR_REMOVE, REPLACE_ONE, ZERO_OUT
from sfumato.sampling import CyclicPoisson, FullBatch, Poisson, TruncatedPoisson, WithoutReplacement

SAMPLER, NOISE = "plugins.stratified:Stratified", "plugins.halves:Halves"
STEPS, BATCH = 4, 6
SAMPLED = (*NETWORK, "--sampler", SAMPLER, "--batch", BATCH, "--relation", ZERO_OUT)
SETTINGS = ("--steps", STEPS, "--epsilon", 1, "--log", "quiet", "--insecure-seed", 1)
QUICKLY = ("--checkpoint-seconds", 1e-6)
G = GaussianEvent(2.0)


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: nothing is allowed yet."""
    monkeypatch.setattr(plugins, "_allowed", set())


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# -- laws


@pytest.mark.slow
def test_its_batches_follow_the_law_of_its_event(monkeypatch: pytest.MonkeyPatch) -> None:
    def probability(event: Any, n: int, subset: tuple[int, ...]) -> float:
        assert event == StratifiedEvent(2, n, test_samplers.G)
        strata = [subset[k::2] for k in range(2)]
        return float(all(sum(each) == 1 for each in strata)) / (len(strata[0]) * len(strata[1]))

    monkeypatch.setattr(test_samplers, "probability", probability)
    for n in (4, 5):
        test_samplers.check_law(Stratified(2, 10**6, n))
    with pytest.raises(AssertionError):
        test_samplers.check_law(WithoutReplacement(2, 10**6, 4), lambda _: StratifiedEvent(2, 4, G))


def test_its_noise_follows_the_law_of_the_event_that_it_claims() -> None:
    """False alarms: 1e-8."""
    assert Halves(MULTIPLIER).event == GaussianEvent(MULTIPLIER)
    check_noise_law(Halves(MULTIPLIER))
    with pytest.raises(AssertionError):
        check_noise_law(Halves(MULTIPLIER * 0.97))


@pytest.mark.slow
def test_its_event_has_the_price_that_it_states() -> None:
    def spent(event: events.Event, relation: Any) -> float:
        return accountants.epsilon({event: 10}, 1e-5, relation=relation)

    own, known = StratifiedEvent(10, 1009, G), FixedSizeEvent(1, 100, G)
    for relation in (ZERO_OUT, REPLACE_ONE):
        assert spent(own, relation) == spent(known, relation)
    with pytest.raises(ArgumentError, match="no Rényi bound"):
        spent(own, ADD_OR_REMOVE)
    assert "Wang et al. 2019" in accountants.describe({own: 10}, 1e-5, ZERO_OUT)
    assert events.from_json(json.loads(json.dumps(events.to_json(own)))) == own


def test_a_name_is_given_once_and_what_could_not_be_read_is_not_written() -> None:
    with pytest.raises(ArgumentError, match="GaussianEvent"):
        events.register("gaussian")(StratifiedEvent)

    class Unregistered(GaussianEvent):
        pass

    with pytest.raises(ArgumentError, match="register"):
        events.to_json(Unregistered(1.0))


def test_a_ledger_with_an_unknown_kind_of_event_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.create(tmp_path, delta=1e-5, epsilon_max=99.0, relation=ZERO_OUT) as book:
        book.spend(StratifiedEvent(2, 9, G))
    assert Ledger.read(tmp_path).releases == 1
    monkeypatch.delitem(event_base._KINDS, "stratified")
    monkeypatch.delitem(event_base._FIELDS, "stratified")
    with pytest.raises(LedgerError, match=r"--trust package\.module:Class"):
        Ledger.read(tmp_path)
    refused(tmp_path, "account", tmp_path, says=("stratified", "--trust"))


# -- samplers that learn n later


@pytest.mark.parametrize(
    ("later", "now"),
    [
        (Poisson(batch_size=4, steps=3), Poisson(4 / 24, 3, 24)),
        (Poisson(rate=0.25, steps=3), Poisson(0.25, 3, 24)),
        (TruncatedPoisson(batch_size=4, steps=3), TruncatedPoisson(4 / 24, 3, 24, 14)),
        (CyclicPoisson(batch_size=4, steps=3, cycle=3), CyclicPoisson(0.5, 3, 24, 3)),
        (WithoutReplacement(4, 3), WithoutReplacement(4, 3, 24)),
        (FullBatch(3), FullBatch(3, 24)),
        (Stratified(4, 3), Stratified(4, 3, 24)),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_sampler_is_bound_to_its_data_set_later(later: Any, now: Any) -> None:
    assert later.n is None and later.on(24) == now == now.on(24)
    with pytest.raises(ArgumentError, match=r"on\(n\)"):
        later.indices(test_samplers.KEY, 0)
    with pytest.raises(ArgumentError, match="n=24"):
        now.on(25)


def test_what_a_sampler_claims_waits_for_its_data_set() -> None:
    for later in (
        Poisson(batch_size=4, steps=3),
        TruncatedPoisson(batch_size=4, steps=3),
        CyclicPoisson(batch_size=4, steps=3, cycle=3),
        WithoutReplacement(4, 3),
    ):
        for ask in (lambda each: each.event(G), lambda each: each.q, lambda each: each.to_json()):
            with pytest.raises(ArgumentError, match=r"on\(n\)"):
                ask(later)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Poisson(steps=3),
        lambda: Poisson(rate=0.1, batch_size=4, steps=3),
        lambda: Poisson(batch_size=4),
        lambda: Poisson(batch_size=4, steps=3).on(3),
        lambda: WithoutReplacement(4, 3).on(3),
        lambda: CyclicPoisson(batch_size=4, steps=3, cycle=7).on(24),
    ],
)
def test_what_fits_no_data_set_is_refused(wrong: Any) -> None:
    with pytest.raises(ArgumentError):
        wrong()


# -- runs


@pytest.mark.slow
def test_a_run_with_a_sampler_from_outside(folder: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    train = ("train", "--data", folder, *SAMPLED, *SETTINGS, *QUICKLY)
    shown = succeeds(*train, "--dry-run", "--no-estimate")
    assert "stratified, q = 0.25, expected batch 6" in shown
    succeeds(*train, "--out", whole)
    with ctrl_c_after(2):
        assert sfumato(*train, "--out", run).code == 130
    succeeds("resume", run, "--trust", SAMPLER)
    for name in ("model.safetensors", "evaluation.json", "plan.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name

    plan, ledger = read_plan(run / "plan.json"), Ledger.read(run)
    assert plan.sampler == Stratified(BATCH, STEPS, N)
    event = StratifiedEvent(BATCH, N, GaussianEvent(plan.releases[0].noise_multiplier))
    assert plan.tally == ledger.tally == Counter({event: STEPS})
    told = succeeds("report", run, "--trust", SAMPLER)
    assert "one image of each of 6 strata takes part" in told.replace("\N{NO-BREAK SPACE}", " ")
    assert "Which stratum one image stands in." in told
    assert "one example of each of 6 strata" in succeeds("account", run, "--trust", SAMPLER)
    assert succeeds("predict", run, folder / "test").count("\n") >= 3


@pytest.mark.slow
def test_a_run_with_noise_from_outside(folder: Path, tmp_path: Path) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    train = ("train", "--data", folder, *FULL_BATCH, "--insecure-seed", 1, *QUICKLY)
    train = (*train, "--noise", NOISE, "--out")
    succeeds(*train, whole)
    with ctrl_c_after(2):
        assert sfumato(*train, run).code == 130
    plugins._allowed.clear()
    refused(tmp_path, "resume", run, says=(NOISE, f"--trust {NOISE}"))
    succeeds("resume", run, "--trust", NOISE)
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    plugins._allowed.clear()
    refused(tmp_path, "report", run, says=("plan.json", f"--trust {NOISE}"))
    told = succeeds("report", run, "--trust", NOISE)
    assert "Both halves at once, where one image is concerned." in told
    assert "Gaussian, in two halves, by Philox" in (run / "report.html").read_text()
    assert "epsilon" in succeeds("account", run)
    assert succeeds("predict", run, folder / "test").count("\n") >= 3


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--sampler", "plugins.nowhere:Stratified"), ("sampler=", "cannot be imported")),
        (("--sampler", "plugins.halves:Halves"), ("sampler=", "subclass of")),
        (("--noise", "plugins.halves:nothing"), ("noise=", "subclass of")),
        (("--noise", "loud"), ("noise='loud'", "gaussian, lattice")),
        (("--noise-rng", "dice"), ("noise_rng='dice'", "philox, chacha")),
        (("--sampler", SAMPLER, "--batch", 4, "--cycle", 2), ("cycle=2", "--sampler cyclic")),
    ],
)
def test_what_is_no_plug_in_is_refused_in_a_line(
    folder: Path, tmp_path: Path, flags: tuple[object, ...], says: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    refused(tmp_path, "train", "--data", folder, *NETWORK, *flags, "--out", out, says=says)


@pytest.mark.slow
def test_a_name_in_a_file_of_settings_is_not_imported_unless_it_is_typed(
    folder: Path, tmp_path: Path
) -> None:
    asked = {"data": str(folder), "method": "dp-sgd", "model": "cnn", "sampler": SAMPLER}
    asked |= {"batch": BATCH, "steps": STEPS, "relation": ZERO_OUT, "epsilon": 1.0}
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(asked))
    train = ("train", "--config", settings, "--dry-run", "--no-estimate")
    refused(tmp_path, *train, says=(SAMPLER, f"--trust {SAMPLER}"))
    assert "stratified" in succeeds(*train, f"--trust={SAMPLER}")


def test_a_mechanism_from_outside_is_not_given_correlated_noise() -> None:
    banded = BandedGaussian(2.0, square_root_bands(3)).at(0, str)
    assert Gaussian.keeping(banded) is banded
    assert Halves.keeping(Gaussian(1.5)) == Halves(1.5)
    with pytest.raises(ArgumentError, match="correlated"):
        Halves.keeping(banded)


# -- one declaration per fact

HOUSE = Path(package.__file__).parent
OWN: dict[str, tuple[set[str], tuple[str, ...]]] = {
    "samplers": (
        {
            *("TruncatedPoisson", "CyclicPoisson", "WithoutReplacement", "Stratified"),
            *("TruncatedPoissonEvent", "CyclicPoissonEvent", "FixedSizeEvent"),
            *map(repr, ("truncated", "cyclic", "fixed")),
            *map(repr, ("truncated Poisson", "cyclic Poisson", "fixed size")),
        },
        ("__init__.py", "sampling/", "privacy/events.py"),
    ),
    "mechanisms": ({"LatticeGaussian", "'lattice'"}, ("__init__.py", "noise/")),
    "generators": ({"'philox'", "'chacha'", "'chacha-device'", "ChaCha"}, ("core/generators.py",)),
}


@cache
def named(path: Path) -> set[str]:
    """Names, and whole strings in quotes, in the code of a file; not what its sentences say."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.alias):
            found.add(node.name)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(repr(node.value))
    return found


@pytest.mark.parametrize("what", OWN)
def test_no_file_but_their_own_and_the_list_names_one(what: str) -> None:
    names, homes = OWN[what]
    elsewhere = {}
    for path in sorted(HOUSE.rglob("*.py")):
        where = path.relative_to(HOUSE).as_posix()
        if not where.startswith(homes) and (found := named(path) & names):
            elsewhere[where] = found
    assert not elsewhere
    own = [
        path for path in HOUSE.rglob("*.py") if path.relative_to(HOUSE).as_posix().startswith(homes)
    ]
    assert set().union(*map(named, own)) >= names - {"Stratified"}, "control: they are found"


def test_no_type_of_an_event_is_asked_for_outside_of_its_file() -> None:
    """`isinstance(event, ...)` and `case ...Event(...)`: facts about an event are its own."""
    wrong = []
    for path in sorted(HOUSE.rglob("*.py")):
        if path.relative_to(HOUSE).as_posix() == "privacy/events.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            asked = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance"
            if asked or isinstance(node, ast.MatchClass):
                kinds = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
                if any(kind.endswith("Event") and kind != "Event" for kind in kinds):
                    wrong.append(f"{path.relative_to(HOUSE)}:{node.lineno}")
    assert not wrong
