"""The contestants: one compiled gradient step each, in every setting that is worth trying."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
from cases import CLIP_NORM, Case, Loss, problem
from jaxtyping import PyTree

from sfumato.clip import clipped_grad

OURS = ("auto", "book_keeping", "two_pass", "materialize")
CONTESTANTS = ("ordinary", "jax_privacy", *OURS, "torch", "opacus")
"""ordinary comes first (it is the unit), jax_privacy before ours (its sum is what ours are compared
with)."""
OPACUS_MODES = ("hooks", "ew", "ghost")


@dataclass
class Program:
    """run: one step, returning its sum of gradients once it is done. memory: bytes, None if
    unknown."""

    run: Callable[[], PyTree]
    memory: int | None = None


class Missing(Exception):
    """Why a contestant cannot take part."""


class Programs:
    """The contestants on one case. A program that two contestants share is compiled, and timed,
    once."""

    def __init__(self, case: Case):
        self.case = case
        self.loss, self.params, self.batch = problem(case)
        self.mask = jnp.ones(case.batch, bool)
        self._compiled: dict[str, Program] = {}

    def settings(self, contestant: str) -> dict[str, Callable[[], Program]]:
        """Setting -> how to build it. Raises Missing."""
        if contestant == "jax_privacy":
            return self._jax_privacy()
        if contestant in ("torch", "opacus"):
            return self._torch(contestant)
        return {
            "": lambda: self._ordinary() if contestant == "ordinary" else self._ours(contestant)
        }

    def _ordinary(self) -> Program:
        return self._compile(jax.grad(_mean(self.loss)), self.params, self.batch)

    def _ours(self, method: str) -> Program:
        clipped = clipped_grad(self.loss, CLIP_NORM, method=method)

        def step(params: PyTree, batch: PyTree, mask: PyTree) -> PyTree:
            return clipped(params, batch, mask).value

        return self._compile(step, self.params, self.batch, self.mask)

    def _jax_privacy(self) -> dict[str, Callable[[], Program]]:
        if find_spec("jax_privacy") is None:
            raise Missing("jax_privacy is not installed")
        import jax_privacy

        def build(size: int | None) -> Program:
            clipped = jax_privacy.clipped_grad(
                self.loss,
                l2_clip_norm=CLIP_NORM,
                batch_argnums=1,
                keep_batch_dim=False,
                microbatch_size=size,
            )
            return self._compile(
                lambda params, batch: clipped(params, batch), self.params, self.batch
            )

        sizes = sorted({size for size in (1, self.case.batch // 4) if 0 < size < self.case.batch})
        return {
            f"microbatch {size}" if size else "no microbatch": lambda size=size: build(size)
            for size in (*sizes, None)
        }

    def _torch(self, contestant: str) -> dict[str, Callable[[], Program]]:
        if self.case.twin is None:
            raise Missing("no torch twin of this network")
        if jax.default_backend() != "cpu":
            raise Missing("compared on CPUs only")
        if missing := [name for name in ("torch", "opacus") if find_spec(name) is None]:
            raise Missing(f"{missing[0]} is not installed")
        import torch_models

        torch_models.use_threads(len(os.sched_getaffinity(0)))
        twin = torch_models.Twin(self.case.twin, self.case.shape, self.case.batch)
        if contestant == "torch":
            return {"": lambda: Program(twin.ordinary())}
        return {
            mode: lambda mode=mode: Program(twin.clipped(mode, CLIP_NORM)) for mode in OPACUS_MODES
        }

    def _compile(self, function: Callable[..., PyTree], *arguments: PyTree) -> Program:
        """Memory is XLA's own figure: temporary buffers + outputs - outputs that share an
        argument's buffer."""
        lowered = jax.jit(function).lower(*arguments)
        text = lowered.as_text()
        text = text[text.index("\n") :]  # the first line names the function
        if text not in self._compiled:
            compiled = lowered.compile()
            use = compiled.memory_analysis()
            memory = use.temp_size_in_bytes + use.output_size_in_bytes - use.alias_size_in_bytes
            self._compiled[text] = Program(
                lambda: jax.block_until_ready(compiled(*arguments)), memory
            )
        return self._compiled[text]


def _mean(loss: Loss) -> Loss:
    return lambda params, batch: jax.vmap(loss, (None, 0))(params, batch).mean()


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found: dict[str, Any] = {}
    for name in ("jax-privacy", "opacus", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
