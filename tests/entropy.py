"""A pytest plugin: in CI the secret keys that a test or a fixture draws are a function of its name,
elsewhere they are secret.

What one run draws, the next one draws, too, so a refusal is about the change. Processes that a test
starts draw their own keys.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest


@contextmanager
def keys_of(name: str) -> Iterator[None]:
    """The bytes drawn within are a function of the name and of how many were drawn before."""
    if not os.environ.get("CI"):
        yield
        return
    from sfumato.core import keys

    numbers = count()
    drawn = SimpleNamespace(
        token_bytes=lambda size: hashlib.shake_256(f"{name} {next(numbers)}".encode()).digest(size)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys, "secrets", drawn)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: pytest.FixtureRequest) -> Any:
    with keys_of(f"{request.node.nodeid} {fixturedef.argname}"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    with keys_of(item.nodeid):
        return (yield)
