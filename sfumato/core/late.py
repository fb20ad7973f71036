"""A library that takes long to import, at hand under its name but imported when it is first used."""

from importlib import import_module
from typing import Any


class Late:
    """`np = Late("numpy")`: what numpy has, from the first use on."""

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(import_module(self._name), attribute)
