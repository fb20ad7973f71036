"""Laws of every procedure, not of its parts: who takes part in a step says nothing of another, and
no stream is drawn twice."""

import gc
import weakref
from collections import Counter
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chance import UNLIKELY, sigmas
from pace import paced
from scipy import stats
from test_shipped import METHODS, images, job, plan_of
from test_training_loop import dpsgd

from sfumato.core.keys import SecretKey
from sfumato.features.heads import Sphere
from sfumato.privacy.events import GaussianEvent, SelectedEvent
from sfumato.privacy.ledger import Ledger
from sfumato.runs import tuning as tune
from sfumato.runs.jobs import HeadRows
from sfumato.sampling import CyclicPoisson, Poisson, TruncatedPoisson, WithoutReplacement
from sfumato.solve.labeled_rows import Rows
from sfumato.solve.linear import solver
from sfumato.solve.linear_settings import linear_rule
from sfumato.train import loop

KEY = SecretKey.from_insecure_seed(5)
N, TURNS, RATE = 48, 40, 0.3
HEADS = ("sgd", "adam", "lamb", "fc")
SAMPLERS = {
    "poisson": Poisson(RATE, TURNS, N),
    "truncated": TruncatedPoisson(RATE, TURNS, N, 18),
    "fixed": WithoutReplacement(14, TURNS, N),
    "cyclic": CyclicPoisson(RATE, TURNS, N, 2),
}


def head(method, steps=TURNS):
    """A linear head of rows that point in directions of their own, so that its sums show who took
    part."""
    rows = Rows(np.eye(N, dtype=np.float32), (np.arange(N) % 3).astype(np.int32), 3)
    recipe = linear_rule(method, N, N, 3, 1.0)
    recipe = recipe.__class__(**{**recipe.__dict__, "steps": steps, "sampling": RATE})
    return solver(rows, Sphere.plain(N), recipe, recipe.releases(1.0, 2.0))


def sgd(sampler):
    rows, labels = np.eye(N, dtype=np.float32), (np.arange(N) % 3).astype(np.int32)
    params = {"w": np.zeros((N, 3), np.float32), "b": np.zeros(3, np.float32)}
    return dpsgd(
        params=params, sampler=sampler, fetch=lambda indices, step: (rows[indices], labels[indices])
    )


def taken(procedure):
    """(steps, n): who took part, as the sums of those steps tell that sample."""
    state, found = procedure.start(), []
    for step in range(procedure.steps):
        if isinstance(procedure.event(step), GaussianEvent):
            continue  # everybody does
        total = procedure.measure(state, step, KEY.at(procedure.name)).value
        found.append(
            np.abs(np.asarray(total["w"] if isinstance(total, dict) else total)[:N]).sum(1) > 0
        )
    return np.array(found)


def check_independent(member, cycle=1):
    """Of two steps in which the same examples may take part, the overlap is that of two random
    subsets of these sizes: its deviations over all pairs of steps, and those of steps in a row, are
    within what chance explains.
    """
    sizes = member.sum(1)
    assert sizes.std() > 0 or len(set(map(bytes, member))) > 1, (
        "steps are not independent: all have the same examples"
    )
    squares, lagged = [], []
    for s in range(len(member)):
        for t in range(s + cycle, len(member), cycle):
            among, one, two = (
                len(member[0]) // cycle,
                int(sizes[s]),
                int(sizes[t]),
            )  # the overlap is hypergeometric
            variance = one * two * (among - one) * (among - two) / (among**2 * (among - 1))
            if variance > 0:
                z = (np.sum(member[s] & member[t]) - one * two / among) / variance**0.5
                squares.append(z)
                lagged += [z] if t == s + cycle else []
    assert len(squares) > 300
    total = float(np.square(squares).sum())
    assert stats.chi2.sf(total / 1.1, len(squares)) > UNLIKELY, (
        "steps are not independent: they share examples"
    )
    for each in (squares, lagged):
        assert abs(np.sum(each)) / len(each) ** 0.5 < sigmas(), (
            "steps are not independent: they share examples"
        )


@pytest.mark.parametrize("name", [*HEADS, *SAMPLERS])
def test_who_takes_part_in_a_step_says_nothing_of_another(name):
    """False alarms: 3e-8: three comparisons of each, whose overlaps are hypergeometric and not
    quite normal."""
    member = taken(head(name) if name in HEADS else sgd(SAMPLERS[name]))
    assert len(member) >= TURNS - 1
    check_independent(member, 2 if name == "cyclic" else 1)


@pytest.mark.parametrize("wrong", ["one batch", "every batch twice", "epochs"])
def test_control_steps_that_share_examples_are_noticed(wrong):
    """False alarms: 1e-9."""
    stream = np.random.default_rng(0)
    member = stream.random((TURNS, N)) < RATE
    if wrong == "one batch":
        member[:] = member[0]
    elif wrong == "every batch twice":
        member = member[np.arange(TURNS) // 2]
    else:
        turns = np.concatenate([stream.permutation(N) for _ in range(TURNS // 4)]).reshape(
            TURNS, N // 4
        )
        member = np.array([np.isin(np.arange(N), turn) for turn in turns])
    with pytest.raises(AssertionError, match="not independent"):
        check_independent(member)


# -- streams


@pytest.fixture
def drawn(monkeypatch):
    """The names of all secret streams, as they are drawn."""
    names, stream = [], SecretKey.stream

    def noted(self, *name):
        names.append((*self.name, *name))
        return stream(self, *name)

    monkeypatch.setattr(SecretKey, "stream", noted)
    return names


def check_once(names):
    twice = [name for name, count in Counter(names).items() if count > 1]
    assert len(names) > 1 and not twice, f"drawn twice: {twice}"


@pytest.mark.parametrize(
    "name",
    paced([*HEADS, "ls", "newton", "means", *SAMPLERS], "fc", "sgd", "newton", "means", "cyclic"),
)
def test_a_run_draws_no_stream_twice(tmp_path, drawn, name):
    one = (
        sgd(replace(SAMPLERS[name], steps=4))
        if name in SAMPLERS
        else head(name, 1 if name in ("ls", "means") else 3)
    )
    relation = "zero-out" if name == "fixed" else "add-or-remove-one"
    with Ledger.create(tmp_path, delta=1e-3, epsilon_max=1e4, relation=relation) as book:
        loop.run(one, book, KEY)
    check_once(drawn)


def test_the_fits_of_a_tune_run_share_no_stream(drawn, monkeypatch):
    """Whatever the fits have in common, such as the sum of the rows, each hides under noise of its
    own."""
    monkeypatch.setattr(tune, "number_of_fits", lambda mean, stream: 3)
    rows = Rows(np.eye(N, dtype=np.float32), (np.arange(N) % 3).astype(np.int32), 3)
    table = HeadRows(rows, Sphere.plain(N), np.eye(N, dtype=np.float32), np.arange(N) % 3)

    plan = plan_of(METHODS["ls"], images())
    release = replace(plan.releases[0], count=1, event=SelectedEvent(GaussianEvent(2.0), 3.0))
    tune.best_of(table, replace(plan, method="best of ls", mu=0.5, releases=(release,)), KEY)
    check_once(drawn)
    assert {name[:2] for name in drawn if name[0] == "fit"} == {("fit", fit) for fit in range(3)}


@pytest.mark.parametrize("method", paced(METHODS, "dp-sgd on features", "fc", "ls"))
def test_a_procedure_that_nobody_holds_is_gone_at_once(method):
    """Not when Python next looks for cycles, which may be many fits, and gigabytes of rows, later."""
    source = images()
    procedure = job(plan_of(METHODS[method], source), source).procedure
    seen, state = weakref.ref(procedure), procedure.start()
    gc.disable()
    try:
        for step in range(min(procedure.steps, 3)):
            released = procedure.measure(state, step, KEY.at(procedure.name)).value
            released = jax.tree.map(jnp.asarray, released)
            state = procedure.absorb(state, step, released)
        del procedure
        assert seen() is None
    finally:
        gc.enable()
