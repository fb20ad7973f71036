"""Processes that mean something else are refused by name before the first payment.

The processes of a test take turns in one: each passes the real `sfumato train` up to its first release, and what it
would have exchanged with the others is written down and told to the next."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest

from sfumato.core import devices
from sfumato.core.devices import Layout
from sfumato.core.errors import RunError
from sfumato.core.keys import SecretKey
from sfumato.plan.config import (
    DataConfig,
    LayoutConfig,
    MethodConfig,
    PrivacyConfig,
    RunConfig,
    TrainConfig,
)
from sfumato.privacy.ledger import Ledger
from sfumato.runs import session, training


class Agreed(Exception):
    """The next thing would have been a release."""


@dataclass
class Turn:
    """What process `process` of two says; told: what the other one says, where that is known."""

    process: int
    told: list = field(default_factory=list)
    said: list = field(default_factory=list)

    def everyone(self, own):
        place = len(self.said)
        self.said.append(own)
        other = self.told[place] if place < len(self.told) else own
        return np.stack([own, other] if self.process == 0 else [other, own])


@dataclass(frozen=True)
class OfTwo(LayoutConfig):
    def begin(self):
        devices._here[:] = [Layout((None,), self.process, 2)]


@pytest.fixture
def take_turn(monkeypatch):
    kept = list(devices._here)

    def pass_by(*given, **named):
        raise Agreed

    def turn(process, do, told=()):
        mine = Turn(process, list(told))
        monkeypatch.setattr(devices, "everyone", mine.everyone)
        monkeypatch.setattr(training, "_fit", pass_by)
        try:
            do(OfTwo(process=process))
        except (RunError, Agreed) as end:
            return mine.said, end
        raise AssertionError("it went on")

    yield turn
    devices._here[:] = kept


IMAGES = np.random.default_rng(0).integers(0, 255, (40, 8, 8, 1)).astype(np.uint8)


def written(path, images=IMAGES):
    labels = np.arange(len(images)) % 2
    np.savez(path, x_train=images, y_train=labels, x_test=images[:4], y_test=labels[:4])
    return path


def config(folder, **settings):
    return TrainConfig(
        data=DataConfig(data=str(folder / "images.npz")),
        privacy=PrivacyConfig(epsilon=settings.pop("epsilon", 1.0), insecure_seed=1),
        method=MethodConfig(
            method="dp-sgd", model="cnn", batch=20, steps=2, physical_batch_size=10
        ),
        run=RunConfig(out=folder / "run", log="quiet"),
    )


def another_image(folder, monkeypatch):
    images = IMAGES.copy()
    images[17, 3, 4] ^= 1
    written(folder / "images.npz", images)


def another_key(folder, monkeypatch):
    key = folder / "run" / "secret.key"
    key.unlink()
    SecretKey.from_insecure_seed(2).save(key)


def other_software(folder, monkeypatch):
    whole = session.environment
    monkeypatch.setattr(session, "environment", lambda *given: whole(*given) | {"numpy": "9.9"})


@pytest.mark.parametrize(
    "differs, says",
    [
        (another_image, "process 1 of 2 would train on other images than process 0;"),
        (another_key, "process 1 of 2 would use another secret.key than process 0;"),
        (other_software, "would compute with other software or devices than process 0 (numpy);"),
    ],
)
def test_a_process_with_other_images_or_another_key_is_refused_before_the_first_payment(
    tmp_path, monkeypatch, take_turn, differs, says
):
    written(tmp_path / "images.npz")
    train = lambda layout: training.train(config(tmp_path), layout)  # noqa: E731
    first, passed = take_turn(0, train)
    assert isinstance(passed, Agreed), passed
    _, passed = take_turn(1, train, first)
    assert isinstance(passed, Agreed), "control: who means the same passes"

    differs(tmp_path, monkeypatch)
    _, refused = take_turn(1, train, first)
    assert isinstance(refused, RunError) and says in str(refused) and "\n" not in str(refused)
    assert Ledger.read(tmp_path / "run").releases == 0


def test_process_0_refuses_too_and_leaves_nothing(tmp_path, monkeypatch, take_turn):
    written(tmp_path / "images.npz")
    train = lambda layout: training.train(config(tmp_path), layout)  # noqa: E731
    first, _ = take_turn(0, train)
    (tmp_path / "run").rename(tmp_path / "before")
    told = [*first[:-1], first[-1] ^ 1]
    _, refused = take_turn(0, train, told)
    assert "process 1 of 2 would compute with other software" in str(refused)
    assert not (tmp_path / "run").exists()


def test_settings_that_differ_are_named(tmp_path, take_turn):
    written(tmp_path / "images.npz")
    first, _ = take_turn(0, lambda layout: training.train(config(tmp_path), layout))
    other = lambda layout: training.train(config(tmp_path, epsilon=2.0), layout)  # noqa: E731
    _, refused = take_turn(1, other, first)
    assert "follow another configuration than process 0 (epsilon);" in str(refused)


def test_a_run_goes_on_only_with_one_key_in_all_processes(tmp_path, take_turn):
    """Each may see a directory of its own under the same name; the first payment must not come before."""
    written(tmp_path / "images.npz")
    train = lambda layout: training.train(config(tmp_path), layout)  # noqa: E731
    take_turn(0, train)
    resume = lambda layout: training.resume(tmp_path / "run", "quiet", layout)  # noqa: E731
    first, passed = take_turn(0, resume)
    assert isinstance(passed, Agreed), passed

    run = tmp_path / "run"
    key = SecretKey.from_insecure_seed(2)
    another_key(tmp_path, None)
    began = json.loads((run / "work" / "began.json").read_text())
    own = session.beginning(session.of_source(training.open_splits(config(tmp_path)).train, key))
    (run / "work" / "began.json").write_text(json.dumps(began | own))
    _, refused = take_turn(1, resume, first)
    assert "process 1 of 2 would use another secret.key than process 0;" in str(refused)
    assert Ledger.read(run).releases == 0
