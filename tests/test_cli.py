"""The command line as a user meets it: help, refusals, dry runs, output for people and for
programs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from run_helpers import (
    CLASSES,
    FULL_BATCH,
    NETWORK,
    N,
    refused,
    sfumato,
    succeeds,
    train_arguments,
    write_images,
)

from sfumato.cli import main
from sfumato.data.source import Source, Splits
from sfumato.plan.plan import Plan
from sfumato.privacy.events import GaussianEvent
from sfumato.privacy.ledger import Ledger

COMMANDS = (
    "train",
    "features",
    "fit",
    "sweep",
    "tune",
    "resume",
    "evaluate",
    "predict",
    "report",
    "calibrate",
    "account",
    "data",
    "data list",
    "data info",
    "data check",
    "models",
    "pretrain",
    "recipes",
    "audit",
)


# -- help


@pytest.mark.slow
def test_help_of_every_command_needs_neither_jax_nor_matplotlib() -> None:
    program = """
import sys
from sfumato.cli import main
for command in sys.argv[1:]:
    try:
        main([*command.split(), "--help"])
    except SystemExit as stopped:
        assert not stopped.code, command
heavy = {"jax", "jaxlib", "equinox", "optax", "matplotlib", "scipy", "sklearn", "dp_accounting", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""
    shown = subprocess.run(
        [sys.executable, "-c", program, "", *COMMANDS], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == "" and shown.stdout.count("usage: sfumato") == len(COMMANDS) + 1


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "frobnicate",
        "train",
        "train --data digits --epsilon abc",
        "data",
        "train --data digits --views 0.5",
        "train --data digits --log loud",
    ],
)
def test_unparsable_arguments_exit_with_2_and_print_no_traceback(arguments: str) -> None:
    outcome = sfumato(*arguments.split())
    assert (
        outcome.code == 2 and outcome.out == "" and outcome.err and "Traceback" not in outcome.err
    )


# -- refusals that need no data of one's own

DIGITS_REFUSED = [
    (("--epsilon", "0"), ("epsilon=0", "greater than 0")),
    (("--epsilon", "-1"), ("epsilon=-1", "greater than 0")),
    (("--epsilon", "1e400"), ("epsilon=inf", "finite")),
    (("--epsilon", "nan"), ("epsilon=nan", "finite")),
    (("--delta", "0.1"), ("delta=0.1", "1/n", "1e-05")),
    (("--delta", "0"), ("delta=0", "1/n")),
    (("--delta", "nan"), ("delta=nan", "1/n")),
    (("--method", "dp-foo"), ("dp-foo", "dp-sgd")),
    (("--model", "resnet"), ("model='resnet'", "resnet18")),
    (("--model", "rasnet"), ("model='rasnet'", "cnn")),
    (("--model", "wrn-17-4"), ("depth=17", "16")),
    (("--batch", "5000"), ("batch=5000", "1455")),
    (("--batch", "0"), ("batch=0", "at least 1")),
    (("--steps", "0"), ("steps=0", "at least 1")),
    (("--learning-rate", "nan"), ("learning_rate=nan", "finite")),
    (("--clip-norm", "0"), ("clip_norm=0", "greater than 0")),
    (("--momentum", "1"), ("momentum=1", "fraction")),
    (("--views", "-1"), ("views=-1", "at least 0")),
    (("--validation", "1"), ("validation=1", "fraction")),
    (("--validation", "nan"), ("validation=nan", "fraction")),
    (("--test-fraction", "-0.1"), ("test_fraction=-0.1", "fraction")),
    (("--resize", "4"), ("4x4", "--resize 8")),
    (("--resize", "0"), ("resize=0", "1 to 4096")),
    (("--seed", "-1"), ("seed=-1", "at least 0")),
    (("--checkpoint-seconds", "0"), ("checkpoint_seconds=0", "greater than 0")),
]


@pytest.mark.parametrize(
    ("arguments", "says"), DIGITS_REFUSED, ids=[" ".join(each[0]) for each in DIGITS_REFUSED]
)
def test_bad_values_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], says: tuple[str, ...]
) -> None:
    model = () if "--model" in arguments or "--method" in arguments else NETWORK
    refused(
        tmp_path,
        "train",
        "--data",
        "digits",
        *model,
        "--out",
        tmp_path / "run",
        *arguments,
        says=says,
    )


@pytest.mark.parametrize(
    "setting",
    [
        ("batch", 64),
        ("steps", 5),
        ("learning_rate", 0.1),
        ("momentum", 0.0),
        ("clip_norm", 1.0),
        ("views", 0),
        ("ema", 0.0),
        ("physical_batch_size", 8),
    ],
)
@pytest.mark.parametrize("method", ["dp-fc", "auto"])
def test_settings_of_another_method_are_refused(
    tmp_path: Path, setting: tuple[str, float], method: str
) -> None:
    name, value = setting
    refused(
        tmp_path,
        "train",
        "--data",
        "digits",
        "--method",
        method,
        "--model",
        "scattering",
        "--out",
        tmp_path / "run",
        f"--{name.replace('_', '-')}",
        value,
        says=(f"{name}={value}", "dp-fc", "another --method: dp-sgd"),
    )


def test_dp_fc_needs_fixed_features(tmp_path: Path) -> None:
    for model in ("cnn", "scatternet"):
        refused(
            tmp_path,
            "train",
            "--data",
            "digits",
            "--method",
            "dp-fc",
            "--model",
            model,
            "--out",
            tmp_path / "run",
            says=(f"model={model!r}", "dp-fc", "scattering"),
        )


def test_unknown_data(tmp_path: Path) -> None:
    for name in ("imagenet", "./imagenet"):
        refused(
            tmp_path,
            "train",
            "--data",
            name,
            "--out",
            tmp_path / "run",
            says=("imagenet", "digits", "cifar10"),
        )
    refused(tmp_path, "data", "info", "imagenet", says=("imagenet", "digits"))


def test_output_that_exists(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "run").mkdir()
    refused(
        tmp_path,
        *train_arguments(folder, tmp_path / "run"),
        says=("exists", "--out", "sfumato resume"),
    )


@pytest.mark.slow
def test_output_that_cannot_be_made(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    refused(tmp_path, *train_arguments(folder, out), says=(str(out), "--out"))


# -- refusals of folders


def train_refused(root: Path, data: Path, *more: object, says: tuple[str, ...]) -> str:
    return refused(root, *train_arguments(data, root / "run", *more), says=says)


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    train_refused(tmp_path, tmp_path / "data", says=(str(tmp_path / "data"), "no images", ".png"))


def test_one_class_only(tmp_path: Path) -> None:
    write_images(tmp_path / "data" / "cat", 4, 100)
    train_refused(tmp_path, tmp_path / "data", says=("only one class", "'cat'", "two"))
    np.savez(tmp_path / "one.npz", x_train=np.zeros((4, 8, 8), np.uint8), y_train=np.zeros(4, int))
    train_refused(tmp_path, tmp_path / "one.npz", says=("only one class", "two"))


def test_class_in_test_but_not_in_train(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    write_images(tmp_path / "data" / "test" / "dog", 1, 100)
    train_refused(tmp_path, tmp_path / "data", says=("'dog'", "test/", "train/"))


def test_unreadable_images_are_counted_and_named_or_skipped(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "data")
    truncated = tmp_path / "data" / "train" / CLASSES[0] / "3.png"
    truncated.write_bytes(truncated.read_bytes()[:-40])
    (tmp_path / "data" / "train" / CLASSES[1] / "1.png").write_text("no image")
    fit = ("train", "--data", tmp_path / "data", "--model", "scattering", "--log", "quiet")
    fit = (*fit, "--out", tmp_path / "run")
    refused(tmp_path, *fit, says=(f"{CLASSES[1]}/1.png: cannot be decoded", "--skip-unreadable"))
    (tmp_path / "data" / "train" / CLASSES[1] / "1.png").rename(tmp_path / "other")
    refused(tmp_path, *fit, says=(f"{CLASSES[0]}/3.png: cannot be decoded", "--skip-unreadable"))
    (tmp_path / "other").rename(tmp_path / "data" / "train" / CLASSES[1] / "1.png")
    bad = tmp_path / "bad.txt"
    assert "36 images: 2 cannot be decoded" in succeeds(
        "data", "check", tmp_path / "data", "--out", bad
    )

    def stop(directory: object, config: object, plan: Plan, splits: Splits, *_: object) -> None:
        assert plan.n == len(splits.train) == N - 2
        assert splits.skipped == (f"train/{CLASSES[0]}/3.png", f"train/{CLASSES[1]}/1.png")
        raise KeyboardInterrupt

    monkeypatch.setattr("sfumato.runs.training._fit", stop)
    outcome = sfumato(*fit, "--skip-unreadable", bad)
    assert (
        outcome.code == 130
        and json.loads((tmp_path / "run" / "plan.json").read_text())["n"] == N - 2
    )


@pytest.mark.slow
def test_sizes_that_differ(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path / "data")
    write_images(tmp_path / "data" / "train" / CLASSES[2], 1, 100, size=(9, 12))
    train_refused(tmp_path, tmp_path / "data", says=("8x8", "12x9", "--resize"))
    plan = json.loads(
        succeeds(
            *train_arguments(
                tmp_path / "data", tmp_path / "run", "--dry-run", "--log", "json", "--resize", 8
            )
        )
    )
    assert plan["shape"] == [8, 8, 3]


# -- refusals of run directories


def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        ("config.json", {"epsilon": 9.0}),
        ("config.json", {"data": "/nowhere"}),
        ("config.json", {"new": 1}),
        ("plan.json", {"epsilon": 9.0}),
        ("plan.json", {"releases": []}),
        ("plan.json", {"sampler": {}}),
    ],
)
def test_resume_with_a_changed_config(
    tmp_path: Path, interrupted: Path, finished: Path, changes: tuple[str, dict]
) -> None:
    for number, run in enumerate((interrupted, finished)):
        (tmp_path / str(number)).mkdir()
        run = copy(run, tmp_path / str(number))
        edit(run / changes[0], **changes[1])
        refused(tmp_path, "resume", run, says=(str(run), "changed", "restore"))


def test_resume_with_a_damaged_config(tmp_path: Path, interrupted: Path) -> None:
    run = copy(interrupted, tmp_path)
    (run / "plan.json").write_text("{")
    refused(tmp_path, "resume", run, says=("plan.json", "restore"))


def ledger_lines(run: Path) -> list[str]:
    return (run / "ledger.jsonl").read_text().splitlines(keepends=True)


def test_an_edited_ledger_is_noticed(tmp_path: Path, interrupted: Path) -> None:
    run = copy(interrupted, tmp_path)
    opening, *spent = ledger_lines(run)
    edits = {
        "1": [opening.replace('"epsilon_max":3', '"epsilon_max":9'), *spent],
        "2": [opening, *spent[1:]],
        "3": [opening, spent[0], spent[1].replace("noise_multiplier", "noise_multiplied")],
    }
    for line, lines in edits.items():
        (run / "ledger.jsonl").write_text("".join(lines))
        assert lines != ledger_lines(interrupted)
        for command in ("resume", "account"):
            refused(
                tmp_path, command, run, says=("ledger.jsonl", f"line {line}", "edited", "restore")
            )


def test_a_ledger_that_lost_its_end_is_noticed(tmp_path: Path, interrupted: Path) -> None:
    run = copy(interrupted, tmp_path)
    (run / "ledger.jsonl").write_text("".join(ledger_lines(run)[:-1]))
    refused(tmp_path, "resume", run, says=("ledger.jsonl", "checkpoint", "restore"))


def test_budget_exhausted(tmp_path: Path, interrupted: Path) -> None:
    run = copy(interrupted, tmp_path)
    with Ledger.open(run) as ledger:
        ledger.spend(GaussianEvent(3.0), "something else")
    refused(
        tmp_path, "resume", run, says=("epsilon=", "epsilon_max=3", "fewer steps or more noise")
    )


def test_resume_without_its_key(tmp_path: Path, interrupted: Path) -> None:
    run = copy(interrupted, tmp_path)
    (run / "secret.key").write_text("rubbish")
    refused(tmp_path, "resume", run, says=("secret.key", "cannot be resumed"))
    (run / "secret.key").unlink()
    refused(tmp_path, "resume", run, says=("secret.key", "missing", "cannot be resumed"))


def test_resume_with_other_images(tmp_path: Path, interrupted: Path, folder: Path) -> None:
    image = folder / "train" / CLASSES[0] / "0.png"
    original = image.read_bytes()
    try:
        Image.new("RGB", (8, 8)).save(image)
        refused(
            tmp_path,
            "resume",
            copy(interrupted, tmp_path),
            says=("training images or secret.key changed", "restore"),
        )
    finally:
        image.write_bytes(original)


def test_unfinished_and_missing_runs(tmp_path: Path, interrupted: Path) -> None:
    run, image = copy(interrupted, tmp_path), tmp_path / "x.png"
    for command in (("evaluate", run), ("predict", run, image), ("report", run)):
        refused(tmp_path, *command, says=(str(run), "sfumato resume"))
    for command in ("resume", "evaluate", "report"):
        refused(
            tmp_path, command, tmp_path / "no", says=("no", "not a run directory", "sfumato train")
        )
    refused(tmp_path, "account", tmp_path / "no", says=("no ledger",))


def test_images_that_cannot_be_predicted(tmp_path: Path, finished: Path) -> None:
    refused(tmp_path, "predict", finished, tmp_path / "no.png", says=("no.png", "no such file"))
    (tmp_path / "bad.png").write_text("no image")
    refused(
        tmp_path,
        "predict",
        finished,
        tmp_path / "bad.png",
        says=("bad.png", "not a readable image"),
    )
    refused(tmp_path, "predict", finished, says=("images", "at least one"))


def test_a_data_set_with_other_classes_is_not_evaluated(tmp_path: Path, finished: Path) -> None:
    run = copy(finished, tmp_path)
    refused(tmp_path, "evaluate", run, "--data", "digits", says=("digits", "classes"))
    refused(tmp_path, "evaluate", run, "--split", "validation", says=("validation", "--split"))


# -- numbers without a run


def test_calibrate_and_account_agree() -> None:
    told = succeeds("calibrate", "--epsilon", 0.5, "--n", 1000, "--batch", 1000, "--steps", 20)
    sigma = told.split()[2]
    again = succeeds(
        "account", "--noise-multiplier", sigma, "--n", 1000, "--batch", 1000, "--steps", 20
    )
    assert 0.499 < float(again.split()[1]) <= 0.50001 and "delta 1e-05" in again


def test_calibrate_and_account_refuse(tmp_path: Path) -> None:
    numbers = ("--n", 100, "--batch", 100, "--steps", 2)
    refused(tmp_path, "calibrate", "--epsilon", -1, *numbers, says=("epsilon=-1",))
    refused(
        tmp_path, "calibrate", "--epsilon", 1, *numbers, "--delta", 0.5, says=("delta=0.5", "1/n")
    )
    refused(
        tmp_path,
        "calibrate",
        "--epsilon",
        1,
        "--n",
        100,
        "--batch",
        101,
        "--steps",
        2,
        says=("batch=101", "100"),
    )
    refused(tmp_path, "account", "--noise-multiplier", 1, "--n", 100, says=("batch", "--steps"))
    refused(tmp_path, "account", "--noise-multiplier", 0, *numbers, says=("noise_multiplier=0",))


def test_data_list_and_info(folder: Path) -> None:
    listed = succeeds("data", "list")
    assert [line.split()[0] for line in listed.splitlines()] == [
        "digits",
        "mnist",
        "fashion_mnist",
        "cifar10",
        "cifar100",
    ]
    told = succeeds("data", "info", folder)
    assert "24 train, 12 test" in told and "8x8x3" in told and all(name in told for name in CLASSES)


# -- dry run


@pytest.fixture
def sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads or decodes an image of a data set fails. (The estimate times images of random
    pixels.)"""
    raw = Source.raw

    def guarded(self: Source, indices: Any) -> Any:
        assert self.name == "random", "a private image was read"
        return raw(self, indices)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(Source, "raw", guarded)
    for place in (
        "sfumato.data.open",
        "sfumato.data.opening.open",
        "sfumato.data.decode.decode",
        "sfumato.data.from_records.decode",
    ):
        monkeypatch.setattr(place, fail)


@pytest.mark.slow
def test_dry_run_prints_the_plan_and_reads_no_image(
    tmp_path: Path, folder: Path, sealed: None
) -> None:
    told = succeeds("train", "--data", folder, *FULL_BATCH, "--out", tmp_path / "run", "--dry-run")
    for words in (
        "24 training",
        "q = 1",
        "expected batch 24",
        "steps 4",
        "noise multiplier",
        "<= 3 at delta 1e-05",
        "trained parameters",
        "B of memory",
        "estimate",
    ):
        assert words in told, words
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_dry_run_of_png_files_reads_headers_only(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    succeeds("train", "--data", folder, *FULL_BATCH, "--out", tmp_path / "run", "--dry-run")


@pytest.mark.slow
def test_dry_run_for_programs(tmp_path: Path, sealed: None) -> None:
    told = succeeds(
        "train",
        "--data",
        "digits",
        *NETWORK,
        "--steps",
        20,
        "--batch",
        64,
        "--epsilon",
        0.5,
        "--out",
        tmp_path / "run",
        "--dry-run",
        "--log",
        "json",
    )
    plan = json.loads(told)
    assert (
        plan["n"] == 1455
        and plan["sampler"]["rate"] == 64 / 1455
        and plan["settings"]["steps"] == 20
    )
    assert 0.49 < plan["spends"] <= plan["epsilon"] == 0.5 and plan["delta"] == 1e-5
    assert plan["releases"][0]["noise_multiplier"] > 0 and plan["parameters"] > 0
    assert plan["estimated_seconds"] > 0 and plan["estimated_memory_bytes"] > 1e8
    assert list(tmp_path.iterdir()) == []


# -- what is printed


@pytest.mark.slow
def test_json_lines_end_with_the_result(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "run"
    outcome = sfumato(*train_arguments(folder, out, "--log", "json"))
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.code == 0 and outcome.err == ""
    assert [line["event"] for line in lines].count("result") == 1 and lines[-1]["event"] == "result"
    assert {"message", "stage", "progress", "result"} == {line["event"] for line in lines}
    few, same = [line["warning"] for line in lines if line["event"] == "message"]
    assert few.startswith("epsilon=3: with n=24 ")
    assert same.startswith("12 evaluation images are training images")  # as the set was made
    result = json.loads((out / "result.json").read_text())
    assert lines[-1]["run"] == str(out) and lines[-1]["epsilon"] == result["spent"]["epsilon"] <= 3
    assert lines[-1]["evaluation"]["n"] == 12
    resumed = sfumato("resume", out, "--log", "json")
    assert (
        resumed.code == 0
        and json.loads(resumed.out.splitlines()[-1])["epsilon"] == lines[-1]["epsilon"]
    )


def test_quiet_prints_only_the_result(
    tmp_path: Path, finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(["resume", str(copy(finished, tmp_path))])
    told = capfd.readouterr()
    assert told.err == ""
    kinds = [
        line.split()[0] for line in told.out.splitlines()
    ]  # "warning": so small a model may be worth nothing
    assert [kind for kind in kinds if kind != "warning"] == [
        "accuracy",
        "measures",
        "privacy",
        "report",
        "model",
    ]


@pytest.mark.slow
def test_bars_go_to_stderr(tmp_path: Path, interrupted: Path) -> None:
    outcome = sfumato("resume", copy(interrupted, tmp_path), "--log", "bar")
    assert (
        outcome.code == 0
        and "4/4" in outcome.err
        and "images/s" in outcome.err
        and "ε" in outcome.err
    )
    assert len([line for line in outcome.out.splitlines() if not line.startswith("warning")]) == 5
