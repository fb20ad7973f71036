"""`sfumato evaluate`."""

from dataclasses import dataclass

from sfumato.cli.trust import Trust
from sfumato.runs.asked import EvaluateConfig


@dataclass(frozen=True)
class Evaluate(EvaluateConfig):
    """Evaluate a finished run's model on test images."""

    trust: Trust = ()

    def __call__(self) -> None:
        from sfumato.runs.evaluating import evaluate

        evaluate(self)
