"""A procedure from outside: Lloyd's algorithm for k means, each step a noisy sum and count. Its
state is NumPy's, in float64."""

from dataclasses import dataclass, replace

import jax
import numpy as np

import sfumato as sf


@dataclass
class KMeans:
    """rows: n x d, of norm at most 1. A row adds (its point, 1) to its nearest center's sum, of norm
    at most sqrt(2)."""

    rows: np.ndarray
    centers: np.ndarray
    steps: int = 3
    noise: float = 1.0
    guarantee: sf.Guarantee | None = None
    name: str = "k-means"

    @property
    def n(self):
        return len(self.rows)

    def with_noise(self, noise_multiplier, guarantee=None):
        return replace(self, noise=noise_multiplier, guarantee=guarantee)

    def describe(self):
        return {"clusters": len(self.centers), "noise": self.noise}

    def fingerprint(self, mac):
        return mac(self.rows.tobytes())

    def start(self):
        return {"centers": self.centers.astype(np.float64)}

    def mechanism(self, step):
        return sf.Gaussian(self.noise)

    def event(self, step):
        return self.mechanism(step).event

    def measure(self, state, step, key):
        rows = self.rows / np.maximum(1, np.linalg.norm(self.rows, axis=1, keepdims=True))
        apart = ((rows[:, None] - state["centers"]) ** 2).sum(2)
        member = jax.nn.one_hot(apart.argmin(1), len(self.centers))
        value = {"sums": member.T @ rows, "counts": member.sum(0)}
        return sf.BoundedSum(value, sf.Sensitivity.of_contribution(2**0.5))

    def absorb(self, state, step, released):
        sums, counts = (np.asarray(released[name], np.float64) for name in ("sums", "counts"))
        return {"centers": sums / np.maximum(counts, 1)[:, None]}
