"""The ledger: paid on disk before the release, never past the budget, every edit noticed, every
crash survived."""

import copy
import json
import os
import pickle

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from sfumato.clip import BoundedSum, Sensitivity
from sfumato.core.errors import ArgumentError, BudgetError, LedgerError, RunError
from sfumato.core.keys import SecretKey
from sfumato.noise import Gaussian
from sfumato.privacy import accountants, events
from sfumato.privacy.events import GaussianEvent, PoissonSampledEvent, tally
from sfumato.privacy.ledger import FILE_NAME, Head, Ledger
from sfumato.train import loop
from sfumato.train.replay_guard import ReplayGuard

G = GaussianEvent(10.0)
P = PoissonSampledEvent(0.01, GaussianEvent(1.5))
KEY = SecretKey.from_insecure_seed(0)


def lines(path):
    return (
        (path / FILE_NAME).read_bytes().splitlines(keepends=True)
        if path.is_dir()
        else path.read_bytes().splitlines(True)
    )


@pytest.fixture
def ledger(tmp_path):
    with Ledger.create(tmp_path, delta=1e-5, epsilon_max=3.0, unit="image", context="c") as opened:
        yield opened


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The bytes of a ledger with an opening line and three payments."""
    path = tmp_path_factory.mktemp("ledger")
    with Ledger.create(path, delta=1e-5, epsilon_max=3.0) as book:
        for number, event in enumerate((G, P, G)):
            book.spend(event, f"r/{number}", "key")
    return (path / FILE_NAME).read_bytes()


def opened(path, content):
    (path / FILE_NAME).write_bytes(content)
    return Ledger.open(path)


# -- paid before released


class Procedure:
    """Two numbers, `steps` releases; calls `look` when private data is measured and when a release
    is absorbed."""

    name = "fake"

    def __init__(self, steps=3, event=G, look=lambda where, step: None):
        self.steps, self._event, self._look = steps, event, look

    def start(self):
        return jnp.zeros(2)

    def event(self, step):
        return self._event

    def mechanism(self, step):
        return Gaussian(10.0)

    def measure(self, state, step, key):
        self._look("measure", step)
        return BoundedSum(jnp.ones(2), Sensitivity.of_contribution(1.0))

    def absorb(self, state, step, released):
        self._look("absorb", step)
        return state + released


def check_paid_first(run, directory):
    """The law: whenever data is measured or a release absorbed, the ledger on disk has the line
    that pays for it."""
    with Ledger.create(directory, delta=1e-5, epsilon_max=3.0) as book:

        def look(where, step):
            releases = [json.loads(line).get("release") for line in lines(directory)]
            assert f"fake/{step}" in releases, f"{where} of step {step} before its payment"

        run(Procedure(look=look), book, KEY)
    assert len(lines(directory)) == 4


def test_every_release_is_paid_for_on_disk_before_data_is_measured(tmp_path):
    check_paid_first(loop.run, tmp_path)


def test_control_a_loop_that_pays_after_releasing_is_noticed(tmp_path):
    def careless(procedure, book, key):
        state = procedure.start()
        for step in range(procedure.steps):
            released = procedure.mechanism(step)(
                procedure.measure(state, step, key), key.at(f"fake/{step}")
            )
            book.spend(procedure.event(step), f"fake/{step}", key.fingerprint)
            state = procedure.absorb(state, step, released)

    with pytest.raises(AssertionError, match="before its payment"):
        check_paid_first(careless, tmp_path)


def test_a_payment_is_flushed_to_the_disk_before_spend_returns(ledger, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_size))
    ledger.spend(G, "r", "k")
    assert synced == [ledger.path.stat().st_size]


def test_a_new_ledger_and_its_directory_entry_are_flushed(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    Ledger.create(tmp_path, delta=1e-5, epsilon_max=1.0).close()
    file, entry = (tmp_path / FILE_NAME).stat().st_ino, tmp_path.stat().st_ino
    assert (
        file in synced and synced[synced.index(file) + 1 :].count(entry) >= 2
    )  # written aside, then linked


def test_killed_while_it_is_created_there_is_no_ledger_or_a_whole_one(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    for name in ("write", "fsync", "replace", "link"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, name, killed)
            Ledger.create(tmp_path / name, delta=1e-5, epsilon_max=1.0)
        Ledger.create(tmp_path / name, delta=1e-5, epsilon_max=1.0).close()
        assert [each.name for each in (tmp_path / name).iterdir()] == [FILE_NAME]


# -- the budget


def test_a_release_past_the_budget_is_refused_and_nothing_is_written(ledger):
    before = ledger.path.read_bytes()
    with pytest.raises(BudgetError, match=r"epsilon=.*epsilon_max=3 .*delta=1e-05"):
        ledger.spend(GaussianEvent(0.5))
    assert ledger.path.read_bytes() == before
    assert ledger.releases == 0 and not ledger.tally
    ledger.spend(G)  # and it still works


def test_spending_one_by_one_stops_at_the_last_release_that_fits(ledger):
    most = next(k for k in range(1, 1000) if accountants.epsilon(tally((G, k + 1)), 1e-5) > 3.0)
    for _ in range(most):
        ledger.spend(G)
    with pytest.raises(BudgetError, match="is spent"):
        ledger.spend(G)
    assert ledger.releases == most
    assert ledger.epsilon() <= 3.0


def test_a_run_that_does_not_fit_is_refused_before_its_first_step(ledger):
    before = ledger.path.read_bytes()
    with pytest.raises(BudgetError):
        loop.run(
            Procedure(steps=1000, look=lambda *_: pytest.fail("data was looked at")), ledger, KEY
        )
    assert ledger.path.read_bytes() == before


def test_authorising_one_plan_does_not_authorize_another(ledger):
    ledger.authorize(tally((G, 20)))
    with pytest.raises(BudgetError):
        ledger.spend(GaussianEvent(0.5))
    ledger.spend(GaussianEvent(3.0))
    while ledger.releases < 500:
        try:
            ledger.spend(G)
        except BudgetError:
            break
    assert (
        accountants.epsilon(ledger.tally, 1e-5)
        <= 3.0
        < accountants.epsilon(ledger.tally + tally((G, 1)), 1e-5)
    )


@pytest.mark.parametrize(
    "first, then, fine", [(G, G, True), (G, P, False), (P, G, False), (P, P, False)]
)
def test_a_sampled_fit_joins_no_other_that_may_have_been_looked_at(ledger, first, then, fine):
    loop.run(Procedure(1, first), ledger, KEY)
    before = ledger.path.read_bytes()
    if fine:
        loop.run(Procedure(1, then), ledger, SecretKey.from_insecure_seed(1))
    else:
        with pytest.raises(BudgetError, match=r"full batches only.*ledger of its own"):
            loop.run(
                Procedure(1, then, lambda *_: pytest.fail("data was looked at")),
                ledger,
                SecretKey.from_insecure_seed(1),
            )
        assert ledger.path.read_bytes() == before
        planned = Procedure(1, then)
        planned.name = "planned together"
        loop.run(planned, ledger, KEY)
    assert ledger.releases == 2


def test_sampled_fits_that_were_planned_together_share_a_ledger(ledger):
    ledger.authorize(tally((P, 2)))
    for key in (KEY, SecretKey.from_insecure_seed(1)):
        loop.run(Procedure(1, P), ledger, key)
    with pytest.raises(BudgetError, match="full batches only"):
        loop.run(Procedure(1, P), ledger, SecretKey.from_insecure_seed(2))


@pytest.mark.parametrize("epsilon", [float("nan"), float("inf")])
def test_an_epsilon_that_is_no_number_refuses(ledger, monkeypatch, epsilon):
    monkeypatch.setattr(accountants, "epsilon", lambda *_, **__: epsilon)
    with pytest.raises(BudgetError):
        ledger.spend(G)
    assert ledger.releases == 0


@pytest.mark.parametrize(
    "budget",
    [{"epsilon_max": 0.0}, {"epsilon_max": float("nan")}, {"delta": 0.0}, {"delta": float("nan")}],
)
def test_a_budget_that_is_none_is_refused_and_no_file_made(tmp_path, budget):
    with pytest.raises(ArgumentError):
        Ledger.create(tmp_path, **{"delta": 1e-5, "epsilon_max": 1.0, **budget})
    assert not os.listdir(tmp_path)


# -- replay


def test_a_release_is_charged_once_per_key(ledger):
    ledger.spend(G, "r", "k")
    for _ in range(2):
        ledger.spend(G, "r", "k", replay=True)
    with pytest.raises(LedgerError, match="noise must not serve twice"):
        ledger.spend(G, "r", "k")
    assert ledger.releases == 1 and ledger.tally[G] == 1
    ledger.spend(G, "r", "other key")
    ledger.spend(G, "other release", "k")
    assert ledger.releases == ledger.tally[G] == 3


@pytest.mark.parametrize("release, key", [(None, None), ("r", None), (None, "k")])
def test_a_release_without_a_full_name_is_charged_every_time(ledger, release, key):
    ledger.spend(G, release, key)
    ledger.spend(G, release, key)
    assert ledger.releases == 2


def test_the_same_release_as_another_event_is_refused(ledger):
    ledger.spend(G, "r", "k")
    with pytest.raises(LedgerError, match="was paid for as"):
        ledger.spend(P, "r", "k")
    assert ledger.releases == 1


def test_a_run_again_with_the_same_key_is_free_and_equal_and_with_another_is_charged(tmp_path):
    with Ledger.create(tmp_path, delta=1e-5, epsilon_max=3.0) as book:
        first = loop.run(Procedure(), book, KEY, replay_guard=ReplayGuard(tmp_path / "sums"))
    with Ledger.open(tmp_path) as book:
        for late in (None, ReplayGuard(tmp_path / "no sums")):
            with pytest.raises(LedgerError, match=r"the replay guard it began with|was paid for"):
                loop.run(Procedure(), book, KEY, replay_guard=late)
        assert np.array_equal(
            first, loop.run(Procedure(), book, KEY, replay_guard=ReplayGuard(tmp_path / "sums"))
        )
        assert book.releases == 3
        assert not np.array_equal(
            first, loop.run(Procedure(), book, SecretKey.from_insecure_seed(9))
        )
        assert book.releases == 6


def test_a_run_killed_at_any_point_never_under_counts(tmp_path):
    """Killed while measuring step k, the ledger has k + 1 payments for k releases; the resumed run
    ends alike."""
    reference = tmp_path / "reference"
    with Ledger.create(reference, delta=1e-5, epsilon_max=3.0) as book:
        wanted = loop.run(Procedure(), book, KEY)
    for where in ("measure", "absorb"):
        for step in range(3):
            path = tmp_path / f"{where}{step}"

            def kill(here, now, where=where, step=step):
                if (here, now) == (where, step):
                    raise KeyboardInterrupt

            with (
                pytest.raises(KeyboardInterrupt),
                Ledger.create(path, delta=1e-5, epsilon_max=3.0) as book,
            ):
                loop.run(Procedure(look=kill), book, KEY, replay_guard=ReplayGuard(path / "sums"))
            with Ledger.open(path) as book:
                assert book.releases == step + 1
                assert np.array_equal(
                    loop.run(Procedure(), book, KEY, replay_guard=ReplayGuard(path / "sums")),
                    wanted,
                )
                assert book.releases == 3


# -- edits


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_editing_any_byte_of_any_line_is_noticed(tmp_path, written, data):
    position = data.draw(st.integers(0, len(written) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != written[position]))
    with pytest.raises(LedgerError):
        opened(tmp_path, written[:position] + bytes([byte]) + written[position + 1 :])


def test_respelling_a_number_is_noticed(tmp_path, written):
    edited = written.replace(b"1e-05", b"1E-05")
    assert edited != written
    with pytest.raises(LedgerError, match="line 1 was edited"):
        opened(tmp_path, edited)


@pytest.mark.parametrize(
    "order",
    [[1, 2, 3], [0, 2, 3], [0, 2, 1, 3], [0, 1, 1, 2, 3], [0, 1, 0, 2, 3], []],
    ids=[
        "opening deleted",
        "one deleted",
        "two swapped",
        "one repeated",
        "opening inserted",
        "all deleted",
    ],
)
def test_deleting_reordering_or_inserting_a_line_is_noticed(tmp_path, written, order):
    parts = written.splitlines(keepends=True)
    with pytest.raises(LedgerError, match="restore the file"):
        opened(tmp_path, b"".join(parts[i] for i in order))
    with pytest.raises(LedgerError):
        Ledger.read(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == b"".join(parts[i] for i in order), (
        "a refused ledger must not be touched"
    )


@pytest.mark.parametrize(
    "junk",
    [b"\n", b"[]\n", b"{}\n", b"null\n", b'{"kind": "spend"}\n', b"\xff\n", b"{" * 10 + b"\n"],
)
def test_a_foreign_line_is_noticed(tmp_path, written, junk):
    with pytest.raises(LedgerError):
        opened(tmp_path, written + junk)


def test_cutting_off_payments_is_noticed_through_the_checkpoints_head(tmp_path, written):
    with opened(tmp_path, written) as book:
        head = book.head
        assert book.reaches(head)
        book.spend(G)
        assert book.reaches(head)
        assert not book.reaches(Head(head.lines, "0" * 64))
    parts = written.splitlines(keepends=True)
    with opened(tmp_path, b"".join(parts[:-1])) as book:
        assert not book.reaches(head)
        book.spend(G)  # as many lines again, but others
        assert book.head.lines == head.lines
        assert not book.reaches(head)


def test_a_last_line_torn_at_any_byte_is_dropped_and_all_others_kept(tmp_path, written):
    start = written.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(start, len(written) - 1):
        with opened(tmp_path, written[:cut]) as book:
            assert book.releases == 2
            assert not book.paid("r/2", "key")
        assert (tmp_path / FILE_NAME).read_bytes() == written[:start]
    with opened(tmp_path, written[:-2]) as book:  # and the file is whole again
        book.spend(G, "r/2", "key")
    assert Ledger.read(tmp_path).releases == 3


@pytest.mark.parametrize("payments", [0, 1, 3])
def test_a_whole_last_line_counts_without_its_newline_too(tmp_path, written, payments):
    """As an editor leaves it, or `echo -n "$(cat ledger.jsonl)"`."""
    content = b"".join(written.splitlines(keepends=True)[: payments + 1])
    (tmp_path / FILE_NAME).write_bytes(content[:-1])
    assert Ledger.read(tmp_path).releases == payments
    assert (tmp_path / FILE_NAME).read_bytes() == content[:-1]
    with Ledger.open(tmp_path) as book:
        assert book.releases == payments
        assert (tmp_path / FILE_NAME).read_bytes() == content, "the newline is back"
        book.spend(G, "more", "key")
    assert Ledger.read(tmp_path).releases == payments + 1


@pytest.mark.parametrize("tail", [b" ", b"x", b"}", b"\r"])
def test_an_edited_last_line_is_not_taken_for_a_torn_one(tmp_path, written, tail):
    for content in (written[:-1] + tail, written[:-1].replace(b'"r/2"', b'"r/3"')):
        with pytest.raises(LedgerError, match="line 4 was edited"):
            opened(tmp_path, content)
        assert (tmp_path / FILE_NAME).read_bytes() == content


def test_reading_a_torn_ledger_does_not_touch_it(tmp_path, written):
    (tmp_path / FILE_NAME).write_bytes(written[:-5])
    assert Ledger.read(tmp_path).releases == 2
    assert (tmp_path / FILE_NAME).read_bytes() == written[:-5]


# -- files, locks, disks


def test_a_second_writer_is_kept_out_until_the_first_is_done(tmp_path):
    with Ledger.create(tmp_path, delta=1e-5, epsilon_max=1.0):
        for _ in range(2):
            with pytest.raises(LedgerError, match="another process"):
                Ledger.open(tmp_path)
        assert Ledger.read(tmp_path).releases == 0
    Ledger.open(tmp_path).close()


def test_refused_openings_leak_no_file_handles(tmp_path, written):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(LedgerError):
            opened(tmp_path, written[1:])
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_ledger_opened_for_reading_or_closed_does_not_spend(tmp_path):
    book = Ledger.create(tmp_path, delta=1e-5, epsilon_max=1.0)
    book.close()
    for closed in (book, Ledger.read(tmp_path)):
        with pytest.raises(LedgerError, match="reading only"):
            closed.spend(G)


def test_a_copy_is_the_ledger_itself_and_pickling_is_refused(ledger):
    for twin in (
        copy.copy(ledger),
        copy.deepcopy(ledger),
        copy.deepcopy({"ledger": [ledger]})["ledger"][0],
    ):
        twin.spend(G)
    assert ledger.tally[G] == ledger.releases == Ledger.read(ledger.path).releases == 3, (
        "a copy counts by itself"
    )
    with pytest.raises(LedgerError, match=r"n_jobs=1") as refusal:
        pickle.dumps(ledger)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("broken", ["short write", "no space", "fsync"])
def test_a_full_disk_takes_the_half_written_line_back_and_releases_nothing(
    ledger, monkeypatch, broken
):
    ledger.spend(G, "before", "k")
    before, write = ledger.path.read_bytes(), os.write

    def fail(*_):
        raise OSError(28, "No space left on device")

    def short(handle, line):
        patch.setattr(os, "write", fail)  # as the kernel does: what fits, and then the error
        return write(handle, line[:40])

    with monkeypatch.context() as patch:
        if broken == "short write":
            patch.setattr(os, "write", short)
        else:
            patch.setattr(os, "write" if broken == "no space" else "fsync", fail)
        with pytest.raises(LedgerError, match="nothing was released"):
            ledger.spend(G, "r", "k")
    assert ledger.path.read_bytes() == before
    assert not ledger.paid("r", "k")
    ledger.spend(G, "r", "k")  # space again
    assert Ledger.read(ledger.path).tally[G] == 2


def test_a_line_that_the_kernel_takes_in_pieces_is_written_whole(ledger, monkeypatch):
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda handle, line: write(handle, line[:40]))
        ledger.spend(G, "r", "k")
    assert Ledger.read(ledger.path).tally[G] == 1


@pytest.mark.parametrize("other_name", [False, True])
@pytest.mark.parametrize("how", ["removed", "replaced", "directory replaced", "cut", "longer"])
def test_a_payment_that_nobody_could_read_is_refused(ledger, tmp_path_factory, how, other_name):
    """The open handle would go on taking lines, into a file that is gone once the process ends or
    has another name only."""
    content, folder = ledger.path.read_bytes(), ledger.path.parent
    if other_name:
        os.link(ledger.path, tmp_path_factory.mktemp("backup") / "hard link")
    if how == "directory replaced":
        folder.rename(tmp_path_factory.mktemp("elsewhere") / "moved")
        folder.mkdir()
        ledger.path.write_bytes(content)
    elif how in ("cut", "longer"):
        os.truncate(ledger.path, 0) if how == "cut" else ledger.path.open("ab").write(b"\n")
    else:
        ledger.path.unlink()
        if how == "replaced":
            ledger.path.write_bytes(content)
    with pytest.raises(
        LedgerError,
        match="changed by another" if how in ("cut", "longer") else "removed or replaced",
    ):
        ledger.spend(G, "r", "k")
    assert not ledger.paid("r", "k")


def test_a_file_system_without_locks_is_refused(tmp_path, written, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(LedgerError, match="does not lock files"):
        opened(tmp_path, written)


def test_no_ledger_and_one_too_many_are_told_apart(tmp_path):
    for reach in (Ledger.open, Ledger.read):
        with pytest.raises(LedgerError, match="no ledger here"):
            reach(tmp_path)
    Ledger.create(tmp_path, delta=1e-5, epsilon_max=1.0).close()
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(RunError, match="a ledger exists"):
        Ledger.create(tmp_path, delta=1e-5, epsilon_max=9.0)
    assert (tmp_path / FILE_NAME).read_bytes() == before


# -- round trips


def test_a_reopened_ledger_states_the_same_and_the_same_epsilon(tmp_path):
    with Ledger.create(tmp_path, delta=1e-6, epsilon_max=2.5, unit="patient", context="x") as book:
        for event in (G, P, P, G):
            book.spend(event)
        spent, head, tallied = book.epsilon(), book.head, book.tally
    for again in (Ledger.read(tmp_path), Ledger.read(tmp_path / FILE_NAME), Ledger.open(tmp_path)):
        assert (again.epsilon(), again.head, again.tally) == (spent, head, tallied)
        assert (again.delta, again.epsilon_max, again.unit, again.context) == (
            1e-6,
            2.5,
            "patient",
            "x",
        )
        assert again.relation == "add-or-remove-one"
        again.close()
    assert spent == accountants.epsilon(tally((G, 2), (P, 2)), 1e-6)


@given(st.floats(1e-3, 1e6), st.floats(1e-9, 1))
def test_events_survive_json_to_the_last_bit(sigma, rate):
    for event in (GaussianEvent(sigma), PoissonSampledEvent(rate, GaussianEvent(sigma))):
        assert events.from_json(json.loads(json.dumps(events.to_json(event)))) == event


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "laplace", "scale": 1.0},
        {"kind": "gaussian"},
        {"kind": "gaussian", "noise_multiplier": "1"},
        None,
        3,
        [],
        {},
        {"kind": "gaussian", "noise_multiplier": 1.0, "count": 5},
        {"kind": "poisson", "rate": 0.1},
        {
            "kind": "poisson",
            "rate": 0.1,
            "event": {"kind": "gaussian", "noise_multiplier": 1.0},
            "relation": "replace-one",
        },
        {
            "kind": "poisson",
            "rate": 0.5,
            "event": {
                "kind": "poisson",
                "rate": 0.1,
                "event": {"kind": "gaussian", "noise_multiplier": 1.0},
            },
        },
    ],
)
def test_an_unknown_kind_of_event_is_refused_not_ignored(value):
    with pytest.raises((LedgerError, TypeCheckError)):
        events.from_json(value)
