"""`sfumato train`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from sfumato.cli.trust import Trust
from sfumato.core.errors import ArgumentError
from sfumato.plan.config import (
    EVERYTHING,
    DataConfig,
    LayoutConfig,
    MethodConfig,
    PrivacyConfig,
    RunConfig,
    TrainConfig,
    UnitConfig,
)

if TYPE_CHECKING:
    from sfumato.plan.plan import Plan
    from sfumato.runs.cost import Estimate


@dataclass(frozen=True)
class Train:
    """Train a private classifier: a run directory with model, ledger and report."""

    data: tyro.conf.OmitArgPrefixes[DataConfig]
    privacy: tyro.conf.OmitArgPrefixes[PrivacyConfig]
    method: tyro.conf.OmitArgPrefixes[MethodConfig]
    run: tyro.conf.OmitArgPrefixes[RunConfig]
    units: tyro.conf.OmitArgPrefixes[UnitConfig]
    layout: tyro.conf.OmitArgPrefixes[LayoutConfig] = field(default_factory=LayoutConfig)
    config: Path | None = None
    """A TOML or JSON file of flags and their values, such as the config.json of a run (give another
    --out then); flags that are given here go before it."""
    recipe: str | None = None
    """Settings of a published result, NAME or NAME:EPSILON of `sfumato recipes`, or of one's own
    .toml file in the same format; with --dry-run, what it costs at full size."""
    scale: float | None = None
    """With --recipe: share of its images, batch and steps."""
    device_memory: float = 80.0
    """For a recipe's --dry-run: GB."""
    device_flops: float = 1e14
    """For a recipe's --dry-run: floating-point operations per second, sustained."""
    no_estimate: bool = False
    """For --dry-run: print the plan at once, without timing a small copy of it."""
    trust: Trust = ()

    def __call__(self) -> None:
        config = TrainConfig(self.data, self.privacy, self.method, self.run, self.units)
        config.method.check()
        if self.recipe is None:
            if self.scale is not None:
                raise ArgumentError("scale", self.scale, "is for a --recipe")
            train(config, not self.no_estimate, self.layout)
        elif self.run.dry_run and self.scale is None:
            self._rehearse(config, self.recipe)
        else:
            config = _from_recipe(config, self.recipe, self.scale)
            train(config, not self.no_estimate, self.layout)

    def _rehearse(self, config: TrainConfig, name: str) -> None:
        """What the recipe costs at full size."""
        from sfumato.cli.rehearsal import Device, rehearse
        from sfumato.plan import recipes

        recipe, point = recipes.find(name)
        config = recipes.configured(recipe, point, config)
        devices = self.layout.devices
        device = Device(self.device_memory, self.device_flops, 1 if devices is None else devices)
        print(rehearse(config, recipe, point, device))


def train(config: TrainConfig, timed: bool = True, layout: LayoutConfig = EVERYTHING) -> None:
    """timed: a dry run estimates time and memory."""
    from sfumato.cli import printing
    from sfumato.core.devices import writes
    from sfumato.runs import training

    if not config.run.dry_run:
        directory = training.train(config, layout)
        if writes():
            printing.print_result(directory, config.run.log, config.run.log == "bar")
        return
    layout.check()
    plan = training.plan_for(config)
    guess, problem = _guess(plan) if timed else (None, "")
    printing.print_plan(plan, guess, config.run.log == "json", problem)


def _guess(plan: "Plan") -> "tuple[Estimate | None, str]":
    """An estimate, or why there is none: a plan may be for a larger machine."""
    from sfumato.runs.cost import estimate

    try:
        return estimate(plan), ""
    except ArgumentError as error:
        if error.argument != "physical_batch_size":
            raise
        return None, f"none on this machine: {error}"


def _from_recipe(config: TrainConfig, name: str, scale: float | None) -> TrainConfig:
    """Ready to run on the data that are at hand; says what was scaled."""
    from sfumato.plan import recipes
    from sfumato.runs.training import describe

    recipe, point = recipes.find(name)
    config = recipes.configured(recipe, point, config)
    if recipe.weights is not None and config.method.weights is None:
        raise ArgumentError(
            "weights",
            None,
            f"{recipe.name} fine-tunes a {config.method.model}; give its public weights",
        )
    if scale is None:
        return config
    n = describe(replace(config, method=replace(config.method, weights=None))).examples
    config = replace(config, data=replace(config.data, share=recipes.share_of(recipe, scale, n)))
    config, told = recipes.scaled(recipe, config, scale, describe(config).examples)
    if config.run.log == "bar":
        print(f"recipe    {recipe.name}, {told}")
    return config
