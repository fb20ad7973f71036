"""`--log-to`: a tracking tool is told what the run's own files say, and nothing else."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from run_helpers import ctrl_c_after, refused, sfumato, succeeds, train_arguments

from sfumato.plan.config import LogTo
from sfumato.runs import tracking
from sfumato.runs.tracking import TRACKERS, Tracked, scalars

Points = dict[tuple[str, int], float]


class Told:
    """A tracker that remembers what it was told."""

    def __init__(self, run: Tracked):
        self.run, self.points, self.closed = run, {}, False

    def numbers(self, found: tracking.Numbers, step: int) -> None:
        self.points |= {(name, step): value for name, value in found.items()}

    def close(self) -> None:
        self.closed = True


class Failing(Told):
    def numbers(self, found: tracking.Numbers, step: int) -> None:
        raise ConnectionError("no server\nat all")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Told]:
    made: list[Told] = []
    monkeypatch.setitem(TRACKERS, "wandb", lambda run: made.append(Told(run)) or made[-1])
    monkeypatch.setattr(tracking.extras, "need", lambda *_: None)
    return made


def told_by_files(run: Path) -> Points:
    """What may be tracked: numbers of files that others may read."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = lines[-1]["step"]
    found = {(name, line["step"]): value for line in lines for name, value in scalars(line).items()}
    for kind in ("evaluation", "result"):
        numbers = scalars(json.loads((run / f"{kind}.json").read_text()))
        found |= {(f"{kind}.{name}", last): value for name, value in numbers.items()}
    return {
        at: value for at, value in found.items() if type(value) in (int, float) and at[0] != "step"
    }


def test_the_flag_names_the_trackers() -> None:
    assert get_args(LogTo) == tuple(TRACKERS)


@pytest.mark.slow
def test_what_is_tracked_is_what_stands_in_files_that_others_may_read(
    folder: Path, told: list[Told], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    succeeds(*train_arguments(folder, run, "--log-to", "wandb", "--show-images"))
    assert (run / "images.json").exists()  # for its owner alone: not told
    (tracker,) = told
    assert tracker.points == told_by_files(run) and tracker.closed
    control = tracker.points | {("loss", 1): 1.0}
    assert control != told_by_files(run), "a number that stands in no file is noticed"
    plan = scalars(json.loads((run / "plan.json").read_text()))
    assert tracker.run.facts == plan and plan["epsilon"] == 3.0
    keys = {json.loads(line).get("key") for line in (run / "ledger.jsonl").read_text().splitlines()}
    assert tracker.run.identity in keys and not tracker.run.resumed


@pytest.mark.slow
def test_a_run_that_goes_on_is_the_same_one_to_the_tracker(
    folder: Path, told: list[Told], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with ctrl_c_after(2):
        asked = train_arguments(folder, run, "--log-to", "wandb", "--checkpoint-seconds", 1e-6)
        assert sfumato(*asked).code == 130
    succeeds("resume", run)
    first, second = told
    assert first.run.identity == second.run.identity and second.run.resumed
    assert {step for _, step in first.points} == {1, 2} and first.closed
    assert {**first.points, **second.points} == told_by_files(run)


@pytest.mark.slow
def test_a_tool_that_fails_costs_one_line_and_not_the_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TRACKERS, "wandb", Failing)
    monkeypatch.setattr(tracking.extras, "need", lambda *_: None)
    asked = train_arguments(folder, tmp_path / "run", "--log-to", "wandb", "--log", "json")
    said = [json.loads(line) for line in succeeds(*asked).splitlines() if line.startswith("{")]
    warned = [each["warning"] for each in said if "log_to" in str(each.get("warning"))]
    assert warned == ["log_to=wandb: no server at all"]
    assert (tmp_path / "run" / "result.json").exists()


def test_a_missing_extra_is_one_line_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, tmp_path / "photos")
    monkeypatch.setattr(tracking.extras, "extras", lambda: {"mlflow": ("no_such_package",)})
    asked = train_arguments(tmp_path / "photos", tmp_path / "run", "--log-to", "mlflow")
    refused(tmp_path, *asked, says=("log_to='mlflow'", "pip install 'sfumato[mlflow]'"))


# -- the tools themselves


def tensorboard_points(root: Path) -> Points:
    from tensorboardX.proto.event_pb2 import Event

    (file,) = (root / "tensorboard" / "run").iterdir()
    content, at, found = file.read_bytes(), 0, {}
    while at < len(content):  # a TFRecord: length, its CRC, bytes, their CRC
        size = int.from_bytes(content[at : at + 8], "little")
        event = Event.FromString(content[at + 12 : at + 12 + size])
        at += size + 16
        found |= {
            (each.tag, event.step): each.simple_value
            for each in event.summary.value
            if each.HasField("simple_value")
        }
    return found


def mlflow_points(root: Path) -> Points:
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    own = client.get_experiment_by_name("sfumato")
    (run,) = client.search_runs([own.experiment_id])
    assert run.info.run_name == "run" and run.data.params["epsilon"] == "3.0"
    assert set(run.data.tags) == {"mlflow.runName", "sfumato.run"}  # no user, no command line
    names = run.data.metrics
    return {
        (name, point.step): point.value
        for name in names
        for point in client.get_metric_history(run.info.run_id, name)
    }


def wandb_records(content: bytes) -> list[bytes]:
    """LevelDB's log: blocks of 32 KiB; a fragment has a CRC, its length and its kind (1 whole, 2 to 4 first,
    middle, last part). Before them seven bytes that name the format."""
    found, open_, at = [], b"", 7
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:
            at += 2**15 - at % 2**15
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        open_ += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):
            found, open_ = [*found, open_], b""
    return found


def wandb_points(root: Path) -> Points:
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = root.glob("wandb/offline-run-*/*.wandb")
    found: Points = {}
    for data in wandb_records(file.read_bytes()):
        record = Record.FromString(data)
        assert not record.run.host and not record.HasField("environment")
        items = {item.key or item.nested_key[-1]: item.value_json for item in record.history.item}
        step = int(items.pop("_step", 0))
        found |= {(n, step): json.loads(v) for n, v in items.items() if not n.startswith("_")}
    return found


READERS: dict[str, tuple[str, Callable[[Path], Points]]] = {
    "tensorboard": ("tensorboardX", tensorboard_points),
    "mlflow": ("mlflow", mlflow_points),
    "wandb": ("wandb", wandb_points),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRACKERS)
def test_each_tool_keeps_what_it_was_told(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, read = READERS[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install 'sfumato[{name}]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(tracking.extras, "need", lambda *_: None)
    asked: Any = train_arguments(folder, tmp_path / "run", "--log-to", name)
    succeeds(*asked)
    found, expected = read(tmp_path), told_by_files(tmp_path / "run")
    assert found.keys() == expected.keys()
    assert all(found[at] == pytest.approx(expected[at], rel=1e-6) for at in expected)
