"""Every planted bug is caught, by the test named for it and for the reason it should be; without
the bug that test passes."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import controls
import pytest
from mutations import BY_NAME, MUTATIONS, Campaign

QUICK = ("no noise", "the ledger is written after the release", "the test set is trained on")
Ask = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with Campaign() as campaign:
        yield campaign.ask


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in BY_NAME],
)
def test_a_planted_bug_is_caught(
    ask: Ask,
    name: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    """Its control, the same test without the bug, is an ordinary one of this run (`controls.py`),
    or else runs here."""
    bug = BY_NAME[name]
    found = ask(name)
    assert found["failed"], f"{name}: {bug.caught_by} did not notice"
    assert re.search(bug.says, found["says"]), (
        f"{name}: caught for another reason:\n{found['says'][-2000:]}"
    )
    if controls.selected(request.node, bug.caught_by):
        record_property(controls.PROPERTY, bug.caught_by)
    else:
        found = ask(f"control {bug.caught_by}")
        assert found["passed"] and not found["failed"], found["says"]


@pytest.mark.parametrize("name", list(BY_NAME))
def test_the_line_that_a_bug_changes_is_there(name: str) -> None:
    for edit in BY_NAME[name].edits:
        edit.find()


def test_names_of_bugs_are_all_different() -> None:
    assert len(BY_NAME) == len(MUTATIONS) >= 20


# -- controls


CATCHERS = """
import pytest

def test_passes(): pass
@pytest.mark.parametrize("x", [0, 1])
def test_of_cases(x): assert x == 0
def test_fails(): assert False
@pytest.mark.skip
def test_is_skipped(): pass
@pytest.mark.xfail
def test_is_known_to_fail(): assert False
"""
BUGS = """
import pytest

@pytest.mark.parametrize("catcher", {catchers})
def test_bug(catcher, record_property):
    record_property("caught by", f"test_law.py::{{catcher}}")
"""
GOOD = ["test_passes", "test_of_cases[0]"]
BAD = [
    "test_fails",
    "test_of_cases[1]",
    "test_is_skipped",
    "test_is_known_to_fail",
    "test_that_is_nowhere",
]


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "1")])
def test_a_bug_is_not_caught_by_a_test_that_does_not_pass_without_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, workers: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(controls.__file__).parent))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # half of a second instead of five
    tests = pytester.mkdir("tests")
    (tests / "test_law.py").write_text(CATCHERS)
    for catchers, passes in ((GOOD + BAD, False), *[(GOOD, True)] * (not workers)):
        (tests / "test_bug.py").write_text(BUGS.format(catchers=catchers))
        chosen = [
            "--deselect",
            "tests/test_law.py::test_fails",
            "--deselect",
            "tests/test_law.py::test_of_cases[1]",
        ]
        found = pytester.runpytest_subprocess(
            "-p", "controls", *workers, *(chosen if passes else []), "tests"
        )
        refused = [
            each
            for each in GOOD + BAD
            if f"NO CONTROL tests/test_bug.py::test_bug[{each}]" in found.stdout.str()
        ]
        assert refused == ([] if passes else BAD), found.stdout.str()
        assert (found.ret == 0) == passes
