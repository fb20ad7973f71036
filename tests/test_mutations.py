"""Every planted bug is caught, by the test named for it and for the reason it should be; without the bug that test passes."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from mutations import BY_NAME, MUTATIONS, Campaign

QUICK = ("no noise", "the same noise for every leaf", "the ledger is written after the release", "the test set is trained on")
Ask = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    with Campaign() as campaign:
        yield campaign.ask


def in_groups(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=[] if name in quick() else [pytest.mark.slow]) for name in names]


def quick() -> set[str]:
    return {*QUICK, *(BY_NAME[name].caught_by for name in QUICK)}


@pytest.mark.parametrize("name", in_groups(list(BY_NAME)))
def test_a_planted_bug_is_caught(ask: Ask, name: str) -> None:
    found = ask(name)
    assert found["failed"], f"{name}: {BY_NAME[name].caught_by} did not notice"
    assert re.search(BY_NAME[name].says, found["says"]), f"{name}: caught for another reason:\n{found['says'][-2000:]}"


@pytest.mark.parametrize("test", in_groups(sorted({each.caught_by for each in MUTATIONS})))
def test_control_without_a_bug_the_test_passes(ask: Ask, test: str) -> None:
    found = ask(f"control {test}")
    assert found["passed"] and not found["failed"], found["says"]


@pytest.mark.parametrize("name", list(BY_NAME))
def test_the_line_that_a_bug_changes_is_there(name: str) -> None:
    for edit in BY_NAME[name].edits:
        edit.find()


def test_names_of_bugs_are_all_different() -> None:
    assert len(BY_NAME) == len(MUTATIONS) >= 20
