"""All examples in every step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64

from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError
from sfumato.core.keys import SecretKey
from sfumato.privacy.events import Event, Inner, independent
from sfumato.sampling.base import Sampler, Wanted, register


@register("full batch")
@dataclass(frozen=True)
class FullBatch(Sampler):
    """Every example takes part in every step: no amplification, and composition is exact."""

    secret: ClassVar[bool] = False
    sentence: ClassVar[str] = (
        "Every step uses all {n} {unit}s (full batch; no privacy is claimed from sampling)"
    )

    steps: int
    n: int | None = None

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        if self.n is not None:
            whole("n", self.n)

    @property
    def q(self) -> float:
        return 1.0

    @property
    def expected_batch_size(self) -> float:
        return float(self.examples)

    def indices(self, key: SecretKey, step: int) -> Int64[np.ndarray, " b"]:
        return np.arange(self.examples)

    def event(self, mechanism: Inner, step: int = 0) -> Event:
        return independent(mechanism)

    @classmethod
    def asked_for(cls, wanted: Wanted) -> Sampler:
        if wanted.batch < wanted.n:
            raise ArgumentError(
                "batch",
                wanted.batch,
                f"--sampler full takes all n={wanted.n} examples in every step; leave one of them out",
            )
        return cls(wanted.steps, wanted.n)

    @classmethod
    def read(cls, value: Mapping[str, Any], n: int, steps: int) -> Sampler:
        return cls(steps, n)
