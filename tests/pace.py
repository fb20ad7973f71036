"""Which cases of a test run every time."""

from collections.abc import Iterable
from typing import Any

import pytest


def paced(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Cases for `parametrize`: those named `quick` run in `make test`, one of each kind; all of
    them in `make test-all`."""
    cases = list(cases)
    assert all(each in cases for each in quick), f"no such case: {quick}"
    return [
        case
        if case in quick
        else pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow)
        for case in cases
    ]
