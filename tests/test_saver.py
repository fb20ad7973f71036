"""Checkpoints that are written while the run goes on: of the state as it was, in their order, at a bounded
cost, and nothing is lost in silence."""

import threading

import numpy as np
import pytest

from sfumato.train import checkpoint, saver
from sfumato.train.saver import Saver

LIKE = {"w": np.zeros(3)}


@pytest.fixture
def held(monkeypatch):
    """Writing waits until it is let go."""
    go, real = threading.Event(), checkpoint.save

    def save(*arguments):
        assert go.wait(60)
        real(*arguments)

    monkeypatch.setattr(checkpoint, "save", save)
    return go


def test_the_state_is_that_of_its_step_whatever_the_next_steps_write_into_it(tmp_path, held):
    state = {"w": np.arange(3.0)}
    with Saver(tmp_path / "c", None) as writing:
        writing.save(state, {"step": 1})
        state["w"] += 100  # the run goes on while nothing is written yet
        assert checkpoint.load(tmp_path / "c", LIKE) is None
        held.set()
    found, facts = checkpoint.load(tmp_path / "c", LIKE)
    assert found["w"].tolist() == [0, 1, 2] and facts == {"step": 1}


def test_a_save_waits_for_the_one_before_and_the_end_for_all(tmp_path):
    with Saver(tmp_path / "c", 1.0) as writing:
        for step in range(20):
            writing.save({"w": np.full(3, float(step))}, {"step": step})
    found, facts = checkpoint.load(tmp_path / "c", LIKE)
    assert facts["step"] == 19 and found["w"].tolist() == [19, 19, 19]


@pytest.mark.parametrize("at_the_end", [False, True])
def test_what_writing_raises_is_raised_once_by_the_next_save_or_at_the_end(
    tmp_path, monkeypatch, at_the_end
):
    def full(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "save", full)
    writing = Saver(tmp_path / "c", 1.0)
    with pytest.raises(OSError, match="no space"), writing:
        writing.save({"w": np.zeros(3)}, {})
        if not at_the_end:
            writing.save({"w": np.zeros(3)}, {})
            pytest.fail("the second save goes on")
    writing.wait()


def test_an_error_of_the_run_itself_comes_first_and_the_writing_is_finished(tmp_path, held):
    with pytest.raises(KeyboardInterrupt), Saver(tmp_path / "c", 1.0) as writing:
        writing.save({"w": np.ones(3)}, {"step": 1})
        held.set()
        raise KeyboardInterrupt
    assert checkpoint.load(tmp_path / "c", LIKE)[1] == {"step": 1}


def test_checkpoints_take_a_fiftieth_of_the_time(tmp_path, monkeypatch):
    """By a clock that is set: a save of 3 seconds is followed by 150 without one."""
    now = [1000.0]
    monkeypatch.setattr(saver, "time", type("Clock", (), {"monotonic": lambda: now[0]}))
    real = checkpoint.save

    def slow(*arguments):
        real(*arguments)
        now[0] += 3

    monkeypatch.setattr(checkpoint, "save", slow)
    with Saver(tmp_path / "c", None) as writing, Saver(tmp_path / "d", 5.0) as asked:
        for passed, due in ((saver.LEAST, False), (0.1, True)):
            now[0] += passed
            assert writing.due is due
        assert asked.due, "what was asked for is kept"
        writing.save({"w": np.zeros(3)}, {})
        writing.wait()
        for passed, due in ((140.0, False), (10.0, True)):
            now[0] += passed
            assert writing.due is due
        assert writing.interval == pytest.approx(150)
