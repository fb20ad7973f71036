"""Every field of every file is paid, public or unpaid: what commands write is in the table, and the
table in the docs."""

import dataclasses
import json
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from run_helpers import CLASSES, FULL_BATCH, ctrl_c_after, sfumato, succeeds, write_images

from sfumato.audit.result import AuditRecord, AuditResult
from sfumato.core import machine, typed_json
from sfumato.core.errors import RunError
from sfumato.core.keys import SecretKey
from sfumato.plan.config import TrainConfig
from sfumato.plan.plan import Plan
from sfumato.privacy import fields
from sfumato.privacy.fields import FIELDS, check, find, places
from sfumato.report import write_report

DOCS = Path(__file__).parents[1] / "docs" / "files.md"


def values(path: Path) -> list[Any]:
    """The JSON values in a file; of any other file nothing."""
    if path.suffix == ".json":
        return [json.loads(path.read_text())]
    return (
        [json.loads(line) for line in path.read_text().splitlines()]
        if path.suffix == ".jsonl"
        else []
    )


def undeclared(directory: Path) -> list[str]:
    """The fields of all files below a directory that are not in the table, and files that are not."""
    found = []
    for path in sorted(each for each in directory.rglob("*") if each.is_file()):
        file = str(path.relative_to(directory))
        found += [file] if file not in fields.by_file() else []
        found += [
            f"{file}: {place}"
            for value in values(path)
            for place in places(value)
            if find(file, place) is None
        ]
    return found


def toy_rows(path: Path, seed: int = 0) -> Path:
    """400 rows of three classes, far apart."""
    stream = np.random.default_rng(seed)
    labels = np.arange(400) % 3
    np.savez(
        path, X=(9 * np.eye(6)[labels] + stream.normal(size=(400, 6))).astype(np.float32), y=labels
    )
    return path


@pytest.mark.slow
def test_what_every_command_writes_is_in_the_table(
    finished: Path, interrupted: Path, folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    succeeds("audit", run, "--size", 64, "--log", "quiet")
    rows = ("--features", toy_rows(tmp_path / "toy.npz"), "--log", "quiet")
    succeeds("fit", *rows, "--out", tmp_path / "fit")
    succeeds("tune", *rows, "--fits", 2, "--out", tmp_path / "tune")
    succeeds("sweep", *rows, "--epsilon", 8, "--method", "ls", "--out", tmp_path / "sweep")
    succeeds(
        "features",
        "--data",
        folder,
        "--model",
        "scattering",
        "--out",
        tmp_path / "store",
        "--log",
        "quiet",
    )
    for directory in (
        run,
        interrupted,
        *(tmp_path / name for name in ("fit", "tune", "sweep", "store")),
    ):
        assert not undeclared(directory)


def test_the_table_has_every_setting_and_every_part_of_a_plan_and_no_other() -> None:
    settings = set(typed_json.names(TrainConfig))
    assert {
        name for each in FIELDS if each.file == "config.json" for name in each.names.split()
    } == settings | {"procedure.*"}
    planned = {each.name for each in dataclasses.fields(Plan)}
    rows = [name for each in FIELDS if each.file == "plan.json" for name in each.names.split()]
    known = {name.split(".")[0].removesuffix("[]") for name in rows}
    assert known == planned | {"mechanism", "accountant", "clip_norm", "public_facts"}


def test_the_documentation_holds_the_table() -> None:
    assert fields.table() in DOCS.read_text(), (
        'print it: python -c "import sfumato.plan.config; from sfumato.privacy.fields import table; print(table())"'
    )


def test_a_field_that_nobody_declared_is_refused() -> None:
    check("metrics.jsonl", {"step": 1, "seconds": 1.0, "epsilon": 0.1, "accuracy": None})
    for file, value in (
        ("metrics.jsonl", {"step": 1, "norm": 2.0}),
        ("result.json", {"spent": {"epsilon": 1.0, "sum": 0.0}}),
        ("other.json", {"step": 1}),
        ("evaluation.json", {"confusion": [[{"x": 1}]]}),
    ):
        with pytest.raises(RunError, match="nobody decided") as refused:
            check(file, value)
        assert "\n" not in str(refused.value) and file in str(refused.value)
    with pytest.raises(RunError, match="how many fits"):
        check("result.json", {"peak_memory_bytes": 1}, selected=True)


# -------------------------------------------------------------------------------------------
# nothing but releases


@pytest.fixture
def blind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Releases say nothing (zeros), keys are fixed and the clocks stand: whatever still differs
    came past the noise."""
    import jax
    import jax.numpy as jnp

    monkeypatch.setattr(
        "sfumato.noise.gaussian.Gaussian.release",
        lambda self, bound: jax.tree.map(jnp.zeros_like, bound.total.value),
    )
    monkeypatch.setattr(SecretKey, "from_entropy", lambda: SecretKey.from_insecure_seed(0))
    stop_clocks(monkeypatch, lambda: 0)
    yield


def stop_clocks(monkeypatch: pytest.MonkeyPatch, days: Any) -> None:
    """The time is so many days after a fixed date, the memory so many gigabytes above a fixed
    number."""
    moment = time.gmtime
    monkeypatch.setattr(
        time, "gmtime", lambda *seconds: moment(*(seconds or (1.8e9 + 86_400 * days(),)))
    )
    monkeypatch.setattr(time, "monotonic", lambda: 1e6 + 86_400 * days())
    monkeypatch.setattr(
        resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=10**6 * (1 + days()))
    )
    monkeypatch.setattr(machine, "peak_memory", lambda: 10**9 * (1 + days()))


def bytes_of(directory: Path, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes() for path in directory.iterdir() if path.name not in without
    }


@pytest.mark.parametrize("command", ["train", "fit"])
def test_but_for_releases_no_file_depends_on_the_training_images(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: None
) -> None:
    """Two data sets of the same public facts and the same test images, releases that say nothing:
    files equal bit for bit."""
    found = []
    for seed in (0, 1):
        here = tmp_path / str(seed)
        here.mkdir()
        monkeypatch.chdir(here)
        monkeypatch.setattr("sfumato.runs.training._with_absolute_paths", lambda config: config)
        if command == "train":
            for number, name in enumerate(CLASSES):
                write_images(here / "data/train" / name, 8, 20 + 100 * number + 3 * seed)
                write_images(here / "data/test" / name, 4, 20 + 100 * number)
            succeeds("train", "--data", "data", *FULL_BATCH, "--out", "run")
        else:
            stream, labels = np.random.default_rng(seed), np.arange(90) % 3
            test = np.eye(6, dtype=np.float32)[:3]
            np.savez(
                "data.npz",
                x_train=stream.normal(size=(90, 6)).astype(np.float32),
                y_train=labels,
                x_test=test,
                y_test=np.arange(3),
            )
            succeeds(
                "fit", "--features", "data.npz", "--method", "ls", "--out", "run", "--log", "quiet"
            )
        found.append(bytes_of(here / "run"))
    assert found[0].keys() == found[1].keys()
    differ = [name for name in found[0] if found[0][name] != found[1][name]]
    assert not differ, f"{differ} tell of the images past the noise"


def test_a_run_writes_these_metrics_and_no_other(tmp_path: Path, folder: Path) -> None:
    with ctrl_c_after(2):
        outcome = sfumato("train", "--data", folder, *FULL_BATCH, "--out", tmp_path / "run")
    assert outcome.code == 130, outcome.err
    metrics = [set(each) for each in values(tmp_path / "run/metrics.jsonl")]
    assert metrics and all(each == {"step", "seconds", "epsilon", "accuracy"} for each in metrics)


# ------------------------------------------------------------------------------------------- the
# secret number of fits


@pytest.mark.slow
def test_one_fit_and_twenty_leave_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All fits score alike, so the first wins; every fit takes a day and a gigabyte. No byte may
    tell how many there were."""
    days, told, found = [0], [], []
    monkeypatch.setattr(SecretKey, "from_entropy", lambda: SecretKey.from_insecure_seed(0))
    stop_clocks(monkeypatch, lambda: days[0])
    from sfumato.runs.tuning import fit_once

    def takes_a_day(*arguments: Any) -> Any:
        days[0] += 1
        return fit_once(*arguments)

    monkeypatch.setattr("sfumato.runs.tuning.fit_once", takes_a_day)
    for fits in (1, 20):
        here, days[0] = tmp_path / str(fits), 0
        here.mkdir()
        monkeypatch.chdir(here)
        toy_rows(Path("toy.npz"))
        monkeypatch.setattr(
            "sfumato.runs.tuning.number_of_fits", lambda mean, stream, fits=fits: fits
        )
        told.append(
            sfumato(
                "tune",
                "--features",
                "toy.npz",
                "--epsilon",
                8,
                "--fits",
                10,
                "--out",
                "best",
                "--log",
                "json",
            )
        )
        assert told[-1].code == 0 and days[0] == fits, told[-1].err
        assert "100.00 %" in told[-1].out, "the fits must score alike for this test"
        found.append(bytes_of(here / "best"))
        assert (
            len({path.stat().st_mtime_ns for path in [*(here / "best").iterdir(), here / "best"]})
            == 1
        )
    assert found[0] == found[1]
    steady = [[line for line in each.out.splitlines() if '"seconds"' not in line] for each in told]
    assert steady[0] == steady[1]
    assert (
        not {"peak_memory_bytes", "finished", "skipped"}
        & json.loads(found[0]["result.json"]).keys()
    )


# ------------------------------------------------------------------------------------------- audits


def measured(attack: str, unpaid: bool) -> AuditResult:
    details = {"AUC": 0.531} if unpaid else {}
    return AuditResult(
        attack,
        "Clopper-Pearson",
        3.0,
        0.01,
        0.777 if unpaid else 0.555,
        0.95,
        "none",
        9,
        1.0,
        details,
        unpaid,
    )


def test_what_attacks_measure_on_private_images_is_the_owners_alone(
    finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "evaluation.json").unlink()  # whose numbers could be these by chance
    (run / "audit.json").write_text("{}")  # as earlier versions left it
    (run / "audit.json").chmod(0o644)
    AuditRecord((measured("whitebox", False), measured("lira", True))).save(run)
    assert (run / "audit.json").stat().st_mode & 0o777 == 0o600

    def shown() -> str:
        return "".join((run / name).read_text() for name in ("report.html", "model_card.md"))

    write_report(run)
    assert (
        "0.56" in shown()
        and "0.78" not in shown()
        and "0.531" not in shown()
        and "outside of the promise" not in shown()
    )
    assert "the attack lira measured on the private images" in shown()
    told = succeeds("report", run, "--with-audit")
    page, card = (run / "report.html").read_text(), (run / "model_card.md").read_text()
    assert (
        "0.78" in page
        and "0.531" in page
        and "Membership inference" in page
        and page.count("outside of the promise") == 1
    )
    assert "Do not pass this report on" in page
    assert (
        told.index("WHAT IS PROMISED")
        < told.index("outside of the promise")
        < told.index("WHAT AN ATTACKER")
    )
    assert "0.531" not in card and "outside of the promise" not in card
    succeeds("evaluate", run)
    assert "Membership inference" not in shown(), "whoever writes the report anew must ask again"


def test_an_audit_of_an_earlier_version_counts_as_unpaid(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "evaluation.json").unlink()  # as above
    old = dataclasses.asdict(measured("whitebox", False))
    del old["unpaid"]
    (run / "audit.json").write_text(json.dumps({"results": [old]}))
    write_report(run)
    assert "0.56" not in (run / "report.html").read_text()


@pytest.mark.parametrize("attack", ["lira", "one-run", "blackbox", "whitebox"])
def test_it_is_said_before_the_attack_begins(
    attack: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for name in ("lira", "one_run_audit", "pretrained", "whitebox"):
        monkeypatch.setattr(f"sfumato.runs.attacks.{name}", begin)
    more = ("--images", 5) if attack == "whitebox" else ()
    outcome = sfumato("audit", finished, "--attack", attack, "--size", 8, "--log", "quiet", *more)
    assert outcome.code == 130 and "NOT PAID FOR" in outcome.err.splitlines()[0]
    if attack == "whitebox":
        assert "NOT PAID FOR" not in sfumato("audit", finished, "--size", 8, "--log", "quiet").err
