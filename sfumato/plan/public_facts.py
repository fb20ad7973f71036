"""What a plan says of public rows and public weights: names, sizes, SHA-256. Read without JAX."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from sfumato.core import typed_json
from sfumato.core.typed_json import Read

if TYPE_CHECKING:
    from sfumato.networks.input import Input
else:
    Input = Any


@dataclass(frozen=True)
class PublicRows:
    """Features of public examples. sha256: of type, shape and every number. directions: kept for the
    fit."""

    path: str
    count: int
    sha256: str
    directions: int

    @property
    def fact(self) -> str:
        """For the report. Of the path only the last part."""
        return (
            f"the features of {self.count:,} public examples ({Path(self.path).name}, SHA-256 {self.sha256[:16]}…), of "
            f"which {self.directions:,} directions were kept"
        )


def _input(value: Any, weights: Mapping[str, Any]) -> Any:
    """It needs JAX, which only plans with public weights have a use for."""
    from sfumato.networks.input import Input

    return typed_json.convert(Input, value, "weights.input")


@dataclass(frozen=True)
class PublicWeights:
    """source: a file, or a name that `sfumato.weights.load` knows. sha256: of the file. model: the
    architecture they are for. input: how the network wants its image. license: of the weights, as
    their own settings name it.
    """

    source: str
    sha256: str
    model: str
    input: Annotated[Input, Read(_input)]
    license: str | None = None

    @property
    def name(self) -> str:
        """For a reader: a file's name without its folders."""
        return (
            self.source.rsplit("/", 1)[-1]
            if self.source.startswith(("/", ".", "~"))
            else self.source
        )

    @property
    def words(self) -> str:
        """Which ones they are."""
        license = f"license {self.license}, " if self.license else ""
        return f"{self.name} ({license}SHA-256 {self.sha256})"
