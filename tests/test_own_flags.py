"""A flag is declared in one place: of a method in its settings, of a sampler in the list of samplers,
of a sampler from outside behind its name. An event of a sampler stands in the sampler's file."""

import ast
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from run_helpers import FULL_BATCH, NETWORK, N, ctrl_c_after, refused, sfumato, succeeds

import sfumato as package
from sfumato.core import plugins, typed_json
from sfumato.core.settings import declared
from sfumato.plan.config import FLAGS, MethodConfig, RowMapConfig
from sfumato.plan.methods import METHODS
from sfumato.plan.plan import read_plan
from sfumato.privacy import fields
from sfumato.sampling import SAMPLERS

SAMPLER = "plugins.thinned:Thinned"
HOUSE = Path(package.__file__).parent
SETTINGS = ("--steps", 4, "--batch", 6, "--epsilon", 1, "--log", "quiet", "--insecure-seed", 1)


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process: nothing is allowed yet."""
    monkeypatch.setattr(plugins, "_allowed", set())


# -- one place


def test_every_flag_of_a_method_or_sampler_has_its_words_once_and_no_other_file_declares_it() -> (
    None
):
    for name in declared(METHODS.values()):
        own = [
            each.metadata["flag"][0]
            for method in METHODS.values()
            for each in dataclasses.fields(method)  # type: ignore[arg-type]
            if each.name == name and each.metadata.get("flag")
        ]
        assert len({words for words in own if words}) == 1, name
    hand_written = {name for name in FLAGS if name in typed_json.names(RowMapConfig)}
    for path in ("plan/config.py", "privacy/fields.py"):
        tree = ast.parse((HOUSE / path).read_text())
        written = {n.target.id for n in ast.walk(tree) if isinstance(n, ast.AnnAssign)}  # type: ignore[attr-defined]
        hand_written |= written & set(FLAGS)
    assert not hand_written
    assert set(FLAGS) <= set(typed_json.names(MethodConfig))
    for name in FLAGS:
        field = fields.find("config.json", name)
        assert field is not None and field.status == "public"


DAMPED = """
import sys
from dataclasses import dataclass, replace
from sfumato.core.checks import positive
from sfumato.core.settings import flag
from sfumato.solve.linear_settings import HEADS, LeastSquares

@dataclass(frozen=True, kw_only=True)
class Damped(LeastSquares):
    method, what = "damped", "a shorter step of least squares"
    damping: float = flag("How much shorter.", positive, default=1.0)

    def given(self, asked, n):
        found = super().given(asked, n)
        return replace(found, learning_rate=found.learning_rate / found.damping)

HEADS["damped"] = Damped
from sfumato.cli import main
from sfumato.plan.config import read_config
from sfumato.plan.plan import read_plan
from pathlib import Path

run = Path(sys.argv[2])
fit = ["fit", "--features", sys.argv[1], "--epsilon", "8", "--out", str(run), "--log", "quiet"]
for wrong in (["--method", "ls", "--damping", "4"], ["--method", "damped", "--damping", "0"]):
    try:
        main([*fit, *wrong])
    except SystemExit as end:
        assert end.code == 2
main([*fit, "--method", "damped", "--damping", "4"])
main(["resume", str(run), "--log", "quiet"])
main(["account", str(run)])
assert read_plan(run / "plan.json").settings.damping == read_config(run / "config.json").method.damping == 4.0
assert read_plan(run / "plan.json").settings.learning_rate == 3 / 4
main(["fit", "--help"])
"""


@pytest.mark.slow
def test_a_flag_of_a_method_touches_its_settings_alone(tmp_path: Path) -> None:
    import numpy as np

    labels = np.arange(60) % 3
    np.savez(tmp_path / "toy.npz", X=9 * np.eye(6, dtype=np.float32)[labels], y=labels)
    arguments = [str(tmp_path / "toy.npz"), str(tmp_path / "run")]
    done = subprocess.run(
        [sys.executable, "-c", DAMPED, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "epsilon 8 at delta" in done.stdout
    assert "Method: damped" in (tmp_path / "run" / "model_card.md").read_text()
    assert "--damping FLOAT" in done.stdout and "How much shorter." in done.stdout
    assert "method ls has no such setting" in done.stderr and "damping=0.0" in done.stderr


# -- a sampler from outside with a value of its own


@pytest.mark.slow
def test_values_of_a_sampler_from_outside_go_through_config_resume_plan_and_report(
    folder: Path, tmp_path: Path
) -> None:
    named = f"{SAMPLER},tosses=3"
    train = ("train", "--data", folder, *NETWORK, *SETTINGS, "--checkpoint-seconds", 1e-6)
    whole, run = tmp_path / "whole", tmp_path / "run"
    succeeds(*train, "--sampler", named, "--out", whole)
    with ctrl_c_after(2):
        assert sfumato(*train, "--sampler", named, "--out", run).code == 130
    succeeds("resume", run, "--trust", SAMPLER)
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    asked = json.loads((run / "config.json").read_text())
    found = json.loads((run / "plan.json").read_text())["sampler"]
    assert asked["sampler"] == named and (found["tosses"], found["rare"]) == (3, False)
    assert read_plan(run / "plan.json").sampler.moved(N).words.endswith(", 3 tosses")
    told = succeeds("report", run, "--trust", SAMPLER)
    assert "has 3 heads takes part" in told.replace("\N{NO-BREAK SPACE}", " ")
    plugins._allowed.clear()
    again = (
        "train",
        "--config",
        run / "config.json",
        "--out",
        tmp_path / "x",
        "--dry-run",
        "--no-estimate",
    )
    refused(tmp_path, *again, says=(SAMPLER, "--trust"))
    assert ", 3 tosses" in succeeds(*again, "--trust", SAMPLER)


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (f"{SAMPLER}", "takes tosses=int, rare=bool; mend tosses"),
        (f"{SAMPLER},tosses=3,heads=2", "mend heads"),
        (f"{SAMPLER},tosses=many", "tosses must be int, not 'many'"),
        (f"{SAMPLER},tosses=3,rare=no", "rare must be bool"),
        (f"{SAMPLER},tosses", ",NAME=VALUE"),
        (f"{SAMPLER},tosses=0", "at least 1"),
        ("cyclic,cycle=3", "only a class from outside takes values"),
        ("poisson,", ",NAME=VALUE"),
    ],
)
def test_wrong_values_of_a_sampler_are_one_line(
    folder: Path, tmp_path: Path, named: str, says: str
) -> None:
    train = ("train", "--data", folder, *NETWORK, *SETTINGS, "--out", tmp_path / "run")
    refused(tmp_path, *train, "--sampler", named, says=(says,))


def test_noise_takes_no_values(folder: Path, tmp_path: Path) -> None:
    train = ("train", "--data", folder, *FULL_BATCH, "--out", tmp_path / "run")
    refused(tmp_path, *train, "--noise", "plugins.halves:Halves,multiplier=0", says=("noise=",))


# -- the event of a sampler


NEW = """
import json, sys
from sfumato.core.named_classes import Named
from sfumato.sampling.registry import SAMPLERS
SAMPLERS._entries["aware"] = Named("plugins.aware:Aware", "poisson by another name")
from sfumato.cli import main
for words in json.loads(sys.argv[1]):
    try:
        main(words)
    except SystemExit as end:
        assert not end.code
    print("-- next")
"""


@pytest.mark.slow
def test_a_sampler_with_a_new_event_is_a_file_and_a_line(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train = ("train", "--data", folder, *NETWORK, *SETTINGS, "--sampler", "aware", "--out", run)
    commands = [list(map(str, words)) for words in (train, ("account", run), ("train", "--help"))]
    done = subprocess.run(
        [sys.executable, "-c", NEW, json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, done.stderr
    _, account, usage, _ = done.stdout.split("-- next\n")
    assert '"kind":"aware"' in (run / "ledger.jsonl").read_text().replace(" ", "")
    assert "epsilon 1 " in account or "epsilon 0.99" in account
    assert "aware" in usage
    assert "aware" not in SAMPLERS
