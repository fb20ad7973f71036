"""Settings of a method: a frozen dataclass, some of whose fields are flags that a user may set."""

from dataclasses import field, fields
from typing import Any


def flag(**default: Any) -> Any:
    """A field that a user may set by the flag of its name. default: as of `dataclasses.field`."""
    return field(metadata={"flag": True}, **default)


def flags_of(settings: type) -> tuple[str, ...]:
    """All flags of a method: fields of its settings, and those that it has `also`, which end in other
    parts of the plan (the sampler, the map of rows)."""
    own = tuple(each.name for each in fields(settings) if each.metadata.get("flag"))
    return (*own, *getattr(settings, "also", ()))
