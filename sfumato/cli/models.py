"""`sfumato models`."""

from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class Models:
    """The networks: parameters, cost of one image, resolution, public weights that fit."""

    name: tyro.conf.Positional[str | None] = None
    """Only this one, in more detail; a short name such as vit-b16 will do."""
    json: bool = False
    """Print JSON, for programs."""

    def __call__(self) -> None:
        from sfumato.cli import model_table

        print(model_table.show(self.name, self.json))
