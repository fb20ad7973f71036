"""Every planted bug is caught, by the test named for it and for the reason it should be; without
the bug that test passes."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import controls
import pytest
from mutations import BY_NAME, MUTATIONS, Campaign

QUICK = (
    "no noise",
    "the same noise for every leaf",
    "the ledger is written after the release",
    "the test set is trained on",
)
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


CATCHER = "import pytest\n@pytest.mark.parametrize('x', [0])\n{mark}\ndef test_catches(x):\n    assert {outcome}\n"
BUG = "def test_bug(request, record_property):\n    record_property('caught by', 'test_law.py::test_catches[0]')\n"


@pytest.mark.parametrize("workers", [(), ("-n", "1")])
@pytest.mark.parametrize(
    "mark, outcome, refused",
    [
        ("", "True", False),
        ("", "False", True),
        ("@pytest.mark.skip", "True", True),
        ("@pytest.mark.xfail", "False", True),
    ],
)
def test_a_bug_is_not_caught_by_a_test_that_does_not_pass_without_it(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    mark: str,
    outcome: str,
    refused: bool,
    workers: tuple[str, ...],
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(controls.__file__).parent))
    tests = pytester.mkdir("tests")
    (tests / "test_law.py").write_text(CATCHER.format(mark=mark, outcome=outcome))
    (tests / "test_bug.py").write_text(BUG)
    found = pytester.runpytest_subprocess("-p", "controls", *workers, str(tests))
    assert ("NO CONTROL tests/test_bug.py::test_bug" in found.stdout.str()) == refused
    assert (found.ret != 0) == refused
