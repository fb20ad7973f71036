"""`sfumato explain-epsilon`."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class ExplainEpsilon:
    """What an epsilon means for one person: how sure an attacker can become that their image was
    used."""

    epsilon: tyro.conf.Positional[str]
    """A number, or the directory of a run: then its own releases are what counts."""
    delta: float | None = None
    """[1e-5, or the run's]"""

    def __call__(self) -> None:
        from sfumato.cli.explaining import of_number, of_run

        try:
            epsilon = float(self.epsilon)
        except ValueError:
            print(of_run(Path(self.epsilon), self.delta))
        else:
            print(of_number(epsilon, 1e-5 if self.delta is None else self.delta))
