"""Commands that train linear heads on rows: features, fit, sweep, tune."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import tyro

from sfumato.core import plugins
from sfumato.core.errors import ArgumentError
from sfumato.plan.config import (
    DataConfig,
    FeaturesConfig,
    Log,
    MethodConfig,
    PrivacyConfig,
    RunConfig,
    TrainConfig,
    UnitConfig,
)


@dataclass(frozen=True)
class Features:
    """Compute fixed features of a data set once, into a directory that `sfumato fit` reads. As
    private as the images."""

    data: tyro.conf.OmitArgPrefixes[DataConfig]
    out: Path
    """Directory to create, or to continue if it was stopped."""
    model: str = "auto"
    """patches+scattering | patches | scattering | scatternet | encoder |
    encoder+patches+scattering [the first; with --weights the network they are for]."""
    weights: str | None = None
    """Public weights: a file or a name; the rows are what their network's head would see."""
    size: int | None = None
    """With --weights: side in pixels to which the network resizes its images [as the weights say].
    """
    dtype: Literal["float16", "float32"] = "float16"
    log: Log = "bar"
    unit: str | None = None
    """Which images belong together, as for `sfumato train`; `sfumato fit --unit units` then counts
    them as one."""

    def __call__(self) -> None:
        from sfumato.cli import commands

        plugins.allow(self.data.data)
        commands.features(
            FeaturesConfig(
                self.data,
                self.out,
                self.model,
                self.weights,
                self.size,
                self.dtype,
                self.log,
                self.unit,
            )
        )


@dataclass(frozen=True)
class RowMap:
    """What is done to rows before anything is learned."""

    public: Path | None = None
    """Features of public examples (a file or a store), for centering and directions that cost no
    privacy."""
    rooted: bool = False
    """Signed square roots of the features first; suits those of a ReLU network."""


@dataclass(frozen=True)
class RowSource:
    """Rows to fit heads on: given ones, or those of a data set under fixed features."""

    features: Path | None = None
    """Rows as for `sfumato fit`; or else give --data."""
    data: str | None = None
    data_dir: Path | None = None
    model: str = "auto"
    """With --data: patches+scattering | patches | scattering | scatternet | encoder |
    encoder+patches+scattering [scattering; with --weights their network]."""
    weights: str | None = None
    """With --data: public weights, a file or a name."""
    size: int | None = None
    """With --weights: side in pixels to which the network resizes its images [as the weights say].
    """


@dataclass(frozen=True)
class Fit:
    """Train a private linear classifier on rows of features: a run directory as `sfumato train`
    makes it."""

    features: Path
    """A feature store, or a .npy (with NAME.labels.npy beside it), .npz, .safetensors or .parquet
    file."""
    privacy: tyro.conf.OmitArgPrefixes[PrivacyConfig]
    run: tyro.conf.OmitArgPrefixes[RunConfig]
    units: tyro.conf.OmitArgPrefixes[UnitConfig]
    method: str = "auto"
    """auto | fc (feature covariance) | ls (least squares) | newton | sgd | adam | lamb | means."""
    batch: int | None = None
    """Expected batch size of gradient steps [all examples]."""
    steps: int | None = None
    learning_rate: float | None = None
    rows: tyro.conf.OmitArgPrefixes[RowMap] = field(default_factory=RowMap)
    per_class: bool = False
    """ls, newton: a matrix of second moments for each class instead of a shared one."""
    validation: float = 0.0
    """Share of the training rows held out for tuning."""
    test_fraction: float = 0.2
    """Share held out as test set where the file has none of its own."""

    def __call__(self) -> None:
        from sfumato.cli import commands

        method = MethodConfig(
            self.method,
            "rows",
            batch=self.batch,
            steps=self.steps,
            learning_rate=self.learning_rate,
            public=self.rows.public,
            rooted=self.rows.rooted,
            per_class=self.per_class,
        )
        where = DataConfig(
            str(self.features), validation=self.validation, test_fraction=self.test_fraction
        )
        commands.train(TrainConfig(where, self.privacy, method, self.run, self.units))


@dataclass(frozen=True)
class Sweep:
    """Linear heads at several epsilons: the privacy-utility curve as PNG, table and JSON, with the
    line without privacy."""

    out: Path
    """Directory to create."""
    source: tyro.conf.OmitArgPrefixes[RowSource] = field(default_factory=RowSource)
    rows: tyro.conf.OmitArgPrefixes[RowMap] = field(default_factory=RowMap)
    epsilon: str = "0.1,1,3,8"
    """Comma-separated."""
    method: str = "ls,fc,newton,sgd"
    """Comma-separated, of fc, ls, newton, sgd, adam, lamb, means."""
    delta: float | None = None
    repeats: int = 1
    """Fits of every point; each spends its own epsilon."""
    log: Log = "bar"

    def __call__(self) -> None:
        from sfumato.cli import commands

        base = _on_rows(self.source, self.rows)
        base = replace(base, privacy=PrivacyConfig(delta=self.delta))
        commands.sweep(base, self.epsilon, self.method, self.out, self.repeats, self.log)


@dataclass(frozen=True)
class Tune:
    """The best of several linear heads with random settings; the price of choosing is in epsilon."""

    out: Path
    """Run directory to create, like that of `sfumato fit`, with the settings chosen in tune.json.
    """
    source: tyro.conf.OmitArgPrefixes[RowSource] = field(default_factory=RowSource)
    rows: tyro.conf.OmitArgPrefixes[RowMap] = field(default_factory=RowMap)
    method: str = "fc,ls"
    """Comma-separated, of fc, ls, newton, sgd, adam, lamb, means."""
    epsilon: float = 3.0
    """Of everything, the choice included."""
    delta: float | None = None
    fits: float = 10.0
    """Mean number of fits; how many there were stays secret."""
    validation: float = 0.1
    """Share of the training examples held out, on which fits are compared."""
    log: Log = "bar"

    def __call__(self) -> None:
        from sfumato.cli import commands

        base = _on_rows(self.source, self.rows)
        base = replace(
            base,
            data=replace(base.data, validation=self.validation),
            privacy=PrivacyConfig(self.epsilon, self.delta),
        )
        commands.tune(base, self.method, self.fits, self.out, self.log)


def _on_rows(source: RowSource, rows: RowMap) -> TrainConfig:
    """Rows from a file or from a data set and a fixed model."""
    if (source.features is None) == (source.data is None):
        raise ArgumentError("features", source.features, "give either --features or --data")
    if source.features is not None:
        method = MethodConfig("fc", "rows", public=rows.public, rooted=rows.rooted)
        return TrainConfig(DataConfig(str(source.features)), method=method)
    method = MethodConfig(
        "fc",
        source.model,
        weights=source.weights,
        size=source.size,
        public=rows.public,
        rooted=rows.rooted,
    )
    return TrainConfig(DataConfig(str(source.data), source.data_dir), method=method)
