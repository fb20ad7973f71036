"""Settings of methods: one declaration for flag, plan and price; the command line is their union."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_helpers import refused, sfumato, succeeds

from sfumato.cli.parser import parse
from sfumato.core import typed_json
from sfumato.core.errors import ArgumentError
from sfumato.core.settings import flags_of
from sfumato.core.typed_json import Damaged, convert, plain
from sfumato.plan import methods, recipes
from sfumato.plan.config import MethodConfig, NetworkConfig, read_config
from sfumato.plan.methods import METHODS, all_flags
from sfumato.plan.plan import read_plan
from sfumato.privacy import accountants, calibration
from sfumato.privacy.events import GaussianEvent
from sfumato.privacy.releases import tally_of
from sfumato.privacy.terms import Budget

N, CLASSES, DELTA = 400, 3, 1e-5


def budget(epsilon: float = 3.0) -> Budget:
    mu = calibration.gaussian_mu_for(epsilon, DELTA, "add-or-remove-one")
    return Budget("features", N, 6, CLASSES, epsilon, DELTA, mu, "add-or-remove-one")


def names(kind: type) -> set[str]:
    return {each.name for each in dataclasses.fields(kind)}


# -- laws over all methods


def test_the_command_line_is_the_union_of_all_methods_flags() -> None:
    asked = names(MethodConfig) - names(NetworkConfig) - {"method"}
    assert len(asked) == len([name for name in typed_json.names(MethodConfig) if name in asked])
    assert set(all_flags()) == asked


@pytest.mark.parametrize("name", METHODS)
def test_settings_keep_the_budget_and_pass_through_json(name: str) -> None:
    """With everybody in every step, composition is exact and quick."""
    asked = {"batch": N} if "batch" in flags_of(METHODS[name]) else {}
    settings = METHODS[name].ruled(budget()).given(asked, N)
    assert settings.batch_of(N) == N
    spent = tally_of(settings.paid(budget(), GaussianEvent))
    epsilon = accountants.epsilon(spent, DELTA, relation="add-or-remove-one")
    assert 2.99 < epsilon <= 3.0
    again = convert(
        type(settings), json.loads(json.dumps(plain(settings))), "settings", closed=True
    )
    assert again == settings and settings.clip_norm > 0 and settings.steps >= 1


@pytest.mark.parametrize("name", METHODS)
def test_a_flag_that_was_given_is_in_the_settings(name: str) -> None:
    values = {"steps": 7, "learning_rate": 0.25, "momentum": 0.0, "clip_norm": 0.5}
    values |= {"views": 0, "ema": 0.5, "physical_batch_size": 3, "optimizer": "lamb"}
    values |= {"per_class": True, "augment": "none"}
    own = {each.name for each in dataclasses.fields(METHODS[name]) if each.metadata.get("flag")}
    given = {flag: value for flag, value in values.items() if flag in own}
    settings = (
        METHODS[name].ruled(budget()).given(given | {"batch": 40} if "batch" in own else given, N)
    )
    assert {flag: getattr(settings, flag) for flag in given} == given


@pytest.mark.parametrize("name", METHODS)
def test_a_flag_of_another_method_is_refused_with_the_names_of_those_that_have_it(
    name: str,
) -> None:
    values: dict[str, Any] = {"optimizer": "adam", "sampler": "full", "public": Path("x")}
    values |= {"rooted": True, "per_class": True, "momentum": 0.0, "views": 0, "ema": 0.5}
    values |= {
        "augment": "none",
        "precision": "bf16",
        "schedule": "cosine",
        "weight_decay": 0.1,
        "warmup": 0.1,
    }
    for flag in set(all_flags()) - set(flags_of(METHODS[name])):
        config = MethodConfig(method=name, **{flag: values.get(flag, 2)})
        with pytest.raises(ArgumentError, match=f"^{flag}=") as refusal:
            config.check()
        for owner in methods.owners(flag):
            assert owner in str(refusal.value)
    own = {flag: values.get(flag, 2) for flag in flags_of(METHODS[name])}
    MethodConfig(method=name, **own).check()


def toy_rows(path: Path) -> Path:
    stream = np.random.default_rng(0)
    labels = np.arange(N) % CLASSES
    rows = 9 * np.eye(6)[labels] + stream.normal(size=(N, 6))
    np.savez(path, X=rows.astype(np.float32), y=labels)
    return path


# -- the command line


def test_fit_sweep_and_tune_have_the_sections_of_train() -> None:
    fit: Any = parse(
        [
            "fit",
            "--features",
            "x.npz",
            "--method",
            "adam",
            "--momentum",
            "0.5",
            "--clip-norm",
            "2",
            "--share",
            "0.5",
        ]
    )
    assert (fit.settings.momentum, fit.settings.clip_norm, fit.split.share) == (0.5, 2.0, 0.5)
    words = (
        "--out o --features x.npz --relation zero-out --noise lattice --noise-rng chacha --unit u"
    )
    for command in ("sweep", "tune"):
        found: Any = parse([command, *words.split()])
        promise = (found.promise.relation, found.promise.noise, found.promise.noise_rng)
        assert promise == ("zero-out", "lattice", "chacha") and found.units.unit == "u"


@pytest.mark.slow
def test_sweep_and_tune_keep_the_relation_and_the_noise_that_were_asked_for(tmp_path: Path) -> None:
    asked = ("--features", toy_rows(tmp_path / "toy.npz"), "--relation", "replace-one")
    asked += ("--noise", "lattice", "--log", "quiet")
    succeeds("sweep", *asked, "--method", "means", "--epsilon", "8", "--out", tmp_path / "sweep")
    assert "replace-one" in succeeds("account", tmp_path / "sweep")
    succeeds("tune", *asked, "--method", "means", "--fits", "1.5", "--out", tmp_path / "tune")
    plan = read_plan(tmp_path / "tune" / "plan.json")
    assert (plan.relation, plan.noise, plan.choices) == ("replace-one", "lattice", ("means",))
    assert read_config(tmp_path / "tune" / "config.json").privacy.relation == "replace-one"


def test_flags_are_accepted_by_the_names_they_had() -> None:
    old = ["train", "--data", "digits", "--grey", "--optimiser", "adam", "--physical", "8"]
    new = ["train", "--data", "digits", "--gray", "--optimizer", "adam", "--physical-batch-size=8"]
    assert parse(old) == parse(new) == parse([*old[:-2], "--physical=8"])


@pytest.mark.parametrize("command", ["train", "fit"])
def test_help_shows_the_choices_and_the_flags_of_each_method(command: str) -> None:
    told = sfumato(command, "--help").out
    shown = [name for name in METHODS if command == "train" or METHODS[name].needs == "rows"]
    assert f"--method {{auto,{','.join(shown)}}}" in told
    assert "newton: Newton's method. --steps --learning-rate --clip-norm" in " ".join(told.split())


def test_a_foreign_flag_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    says = ("steps=3", "method ls has no such setting", "newton, fc, sgd, adam, lamb")
    refused(tmp_path, "fit", "--features", "nowhere", "--method", "ls", "--steps", 3, says=says)


# -- files of settings


def test_settings_from_a_file_and_flags_before_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'data = "digits"\nmethod = "dp-sgd"\nmodel = "cnn"\nlearning-rate = 0.5\ngrey = true\nsteps = 9\n'
    )
    found: Any = parse(["train", "--config", str(tmp_path / "mine.toml"), "--steps", "4"])
    assert (found.data.data, found.data.gray, found.method.model) == ("digits", True, "cnn")
    assert (found.method.learning_rate, found.method.steps) == (0.5, 4)
    run = Path(__file__).parent / "old_runs" / "ls" / "config.json"
    again: Any = parse(["train", f"--config={run}", "--no-gray", "--out", "other"])
    assert (again.method.method, again.privacy.epsilon, again.data.gray) == ("ls", 8.0, False)
    assert again.run.out == Path("other")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.toml", "stepz = 3", ("stepz", "did you mean steps?")),
        ("b.json", '{"steps": "many"}', ("steps must be int, not str",)),
        ("c.toml", "steps = = 3", ("line 1",)),
        ("d.json", '{"method": "dp-foo"}', ("dp-foo", "dp-sgd")),
    ],
)
def test_a_wrong_file_of_settings_is_one_line(
    tmp_path: Path, name: str, content: str, says: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text(content)
    refused(tmp_path, "train", "--config", tmp_path / name, says=(name, *says))
    refused(tmp_path, "train", "--config", tmp_path / "none", says=("none", "No such file"))


OWN = """
title = "my own"
delta = 1e-5
[data]
name = "digits"
n = 1455
test = 342
shape = [8, 8, 1]
classes = 10
[method]
method = "dp-sgd"
model = "cnn"
batch = 256
steps = 20
[[point]]
epsilon = 2
[[point]]
epsilon = 4
steps = 30
"""


@pytest.mark.slow
def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    recipe, point = recipes.find(f"{path}:2")
    assert recipe.at(point).steps == 20 and recipe.name == "mine"
    told = succeeds(
        "train", "--recipe", path, "--no-estimate", "--scale", 1, "--dry-run", "--data", "digits"
    )
    assert "<= 4 at delta 1e-05" in told and "30 x gradient" in told
    path.write_text(OWN.replace("steps = 20", "stepz = 20"))
    refused(tmp_path, "train", "--recipe", path, says=("stepz", "did you mean steps?"))
    path.write_text(OWN.replace("classes = 10", ""))
    refused(tmp_path, "train", "--recipe", path, says=("data.classes is missing",))


# -- the reader


@dataclasses.dataclass(frozen=True)
class Inner:
    gray: bool = False


@dataclasses.dataclass(frozen=True)
class Sample:
    shape: tuple[int, int]
    where: Path | None = None
    inner: Inner = dataclasses.field(default=Inner(), metadata=typed_json.SECTION)


def test_the_reader_and_the_writer_are_inverse() -> None:
    sample = Sample((2, 3), Path("a/b"), Inner(True))
    assert plain(sample) == {"shape": [2, 3], "where": "a/b", "gray": True}
    assert convert(Sample, plain(sample), closed=True) == sample
    assert convert(Sample, {"shape": [2, 3], "grey": True}, closed=True).inner.gray


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"shape": [2]}, "shape must be a list of 2, not of 1"),
        ({"shape": [2, 3.5]}, r"shape\[1\] must be int, not float"),
        ({"shape": [2, 3], "grai": 1}, "unknown entries grai; did you mean gray"),
        ({"shape": [2, 3], "where": 5}, "where must be str, not int"),
        ([], "the file must be an object"),
    ],
)
def test_what_cannot_be_read_says_where(value: Any, complaint: str) -> None:
    with pytest.raises(Damaged, match=complaint):
        convert(Sample, value, closed=True)
