"""`sfumato pretrain`."""

from dataclasses import dataclass

from sfumato.runs.asked import PretrainConfig


@dataclass(frozen=True)
class Pretrain(PretrainConfig):
    """Train a network on PUBLIC images, without any privacy, and write weights that `sfumato train
    --weights` takes."""

    def __call__(self) -> None:
        from sfumato.runs.pretraining import pretrain

        pretrain(self)
