"""Settings of training on public images."""

from dataclasses import dataclass

from sfumato.core.checks import fraction, positive, whole


@dataclass(frozen=True)
class PretrainSettings:
    """How it is trained: batch, rate, momentum and decay are those of Zagoruyko & Komodakis 2016,
    Sec. 3, unless given."""

    epochs: int = 30
    """Passes over the images."""
    batch: int = 128
    """Images in a step."""
    learning_rate: float = 0.1
    """At its largest."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    seed: int = 0

    def check(self) -> None:
        """Raise ArgumentError for settings that no data could make right."""
        whole("epochs", self.epochs)
        whole("batch", self.batch)
        positive("learning_rate", self.learning_rate)
        fraction("momentum", self.momentum)
        fraction("weight_decay", self.weight_decay)
        whole("seed", self.seed, at_least=0)
