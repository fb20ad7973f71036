"""A pytest plugin: a planted bug counts as caught only if the test that caught it passes without
the bug, in the same run.

A test that also fails, is skipped or does not exist without the bug proves nothing about it. The
control of a bug is that test, as an ordinary one of the run: wherever tests run in several
processes, the one that hears of all of them compares.
"""

from typing import Any

import pytest

PROPERTY = "caught by"
"""The property of a planted bug's report: the test that must have passed without it."""


def selected(item: pytest.Item, name: str) -> bool:
    """Whether this run runs the test, `file::test` in tests/."""
    found = item.session.stash.setdefault(_NODES, set())
    if not found:
        found.update(each.nodeid for each in item.session.items)
    return f"tests/{name}" in found


_NODES = pytest.StashKey[set[str]]()


class Controls:
    """What the tests of a run came to, and the tests that must have passed."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()
        self.needed: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or report.skipped:
            self.failed.add(report.nodeid)
        elif report.when == "call":
            self.passed.add(report.nodeid)
            test = dict(report.user_properties).get(PROPERTY)
            if test is not None:
                self.needed[report.nodeid] = f"tests/{test}"

    def missing(self) -> dict[str, str]:
        """Bugs that count as caught -> the test that did not pass without them."""
        return {
            bug: test for bug, test in self.needed.items() if test not in self.passed - self.failed
        }

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.missing():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for bug, test in self.missing().items():
            terminalreporter.write_line(
                f"NO CONTROL {bug}: {test} did not pass without the bug", red=True
            )


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Controls(), "controls of planted bugs")
