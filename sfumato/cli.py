"""The command line: parse -> config -> call. No logic, and nothing heavy is imported before a command runs."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from sfumato.core.errors import ArgumentError, SfumatoError
from sfumato.runs.config import (
    DataConfig,
    FeaturesConfig,
    Log,
    MethodConfig,
    PrivacyConfig,
    Published,
    RunConfig,
    TrainConfig,
    UnitConfig,
)


@dataclass(frozen=True)
class Train:
    """Train a private classifier: a run directory with model, ledger and report."""

    data: tyro.conf.OmitArgPrefixes[DataConfig]
    privacy: tyro.conf.OmitArgPrefixes[PrivacyConfig]
    method: tyro.conf.OmitArgPrefixes[MethodConfig]
    run: tyro.conf.OmitArgPrefixes[RunConfig]
    units: tyro.conf.OmitArgPrefixes[UnitConfig]
    recipe: str | None = None
    """Settings of a published result, NAME or NAME:EPSILON of `sfumato recipes`; with --dry-run, what it costs at full size."""
    scale: float | None = None
    """With --recipe: share of its images, batch and steps."""
    device_memory: float = 80.0
    """For a recipe's --dry-run: GB."""
    device_flops: float = 1e14
    """For a recipe's --dry-run: floating-point operations per second, sustained."""

    def __call__(self) -> None:
        from sfumato.runs import commands

        published = None
        if self.recipe is not None:
            published = Published(self.recipe, self.scale, self.device_memory, self.device_flops)
        elif self.scale is not None:
            raise ArgumentError("scale", self.scale, "is for a --recipe")
        commands.train(TrainConfig(self.data, self.privacy, self.method, self.run, self.units), published)


@dataclass(frozen=True)
class Recipes:
    """Published results whose settings `sfumato train --recipe` follows, with their accuracies."""

    def __call__(self) -> None:
        from sfumato.runs import recipes

        print(recipes.listing())


@dataclass(frozen=True)
class Pretrain:
    """Train a network on PUBLIC images, without any privacy, and write weights that `sfumato train --weights` takes."""

    data: tyro.conf.OmitArgPrefixes[DataConfig]
    out: Path
    """The .safetensors file to write."""
    model: str = "wrn-16-4"
    """A network: cnn | wrn-DEPTH-WIDTH | any of `sfumato models`."""
    epochs: int = 30
    batch: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    size: int | None = None
    """Side in pixels to which the network resizes its images [its own]."""
    seed: int = 0
    log: Log = "bar"

    def __call__(self) -> None:
        from sfumato.runs import pretrain
        from sfumato.train.pretrain import PretrainSettings

        settings = PretrainSettings(self.epochs, self.batch, self.learning_rate, self.momentum, self.weight_decay, self.seed)
        pretrain.pretrain(pretrain.PretrainConfig(self.data, self.model, self.out, settings, self.size, self.log))


@dataclass(frozen=True)
class Features:
    """Compute fixed features of a data set once, into a directory that `sfumato fit` reads. As private as the images."""

    data: tyro.conf.OmitArgPrefixes[DataConfig]
    out: Path
    """Directory to create, or to continue if it was stopped."""
    model: str = "auto"
    """patches+scattering | patches | scattering | scatternet [the first; with --weights the network they are for]."""
    weights: str | None = None
    """Public weights: a file or a name; the rows are what their network's head would see."""
    size: int | None = None
    """With --weights: side in pixels to which the network resizes its images [as the weights say]."""
    dtype: Literal["float16", "float32"] = "float16"
    log: Log = "bar"
    unit: str | None = None
    """Which images belong together, as for `sfumato train`; `sfumato fit --unit units` then counts them as one."""

    def __call__(self) -> None:
        from sfumato.runs import commands

        commands.features(FeaturesConfig(self.data, self.out, self.model, self.weights, self.size, self.dtype, self.log,
                                         self.unit))  # fmt: skip


@dataclass(frozen=True)
class RowMap:
    """What is done to rows before anything is learnt."""

    public: Path | None = None
    """Features of public examples (a file or a store), for centring and directions that cost no privacy."""
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
    """With --data: patches+scattering | patches | scattering | scatternet [scattering; with --weights their network]."""
    weights: str | None = None
    """With --data: public weights, a file or a name."""
    size: int | None = None
    """With --weights: side in pixels to which the network resizes its images [as the weights say]."""


@dataclass(frozen=True)
class Fit:
    """Train a private linear classifier on rows of features: a run directory as `sfumato train` makes it."""

    features: Path
    """A feature store, or a .npy (with NAME.labels.npy beside it), .npz, .safetensors or .parquet file."""
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
        from sfumato.runs import commands

        method = MethodConfig(self.method, "rows", batch=self.batch, steps=self.steps, learning_rate=self.learning_rate,
                              public=self.rows.public, rooted=self.rows.rooted, per_class=self.per_class)  # fmt: skip
        where = DataConfig(str(self.features), validation=self.validation, test_fraction=self.test_fraction)
        commands.train(TrainConfig(where, self.privacy, method, self.run, self.units))


@dataclass(frozen=True)
class Sweep:
    """Linear heads at several epsilons: the privacy-utility curve as PNG, table and JSON, with the line without privacy."""

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
        from sfumato.runs import commands

        base = _on_rows(self.source, self.rows)
        base = replace(base, privacy=PrivacyConfig(delta=self.delta))
        commands.sweep(base, self.epsilon, self.method, self.out, self.repeats, self.log)


@dataclass(frozen=True)
class Tune:
    """The best of several linear heads with random settings; the price of choosing is in epsilon."""

    out: Path
    """Run directory to create, like that of `sfumato fit`, with the settings chosen in tune.json."""
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
        from sfumato.runs import commands

        base = _on_rows(self.source, self.rows)
        base = replace(base, data=replace(base.data, validation=self.validation),
                       privacy=PrivacyConfig(self.epsilon, self.delta))  # fmt: skip
        commands.tune(base, self.method, self.fits, self.out, self.log)


def _on_rows(source: RowSource, rows: RowMap) -> TrainConfig:
    """Rows from a file or from a data set and a fixed model."""
    if (source.features is None) == (source.data is None):
        raise ArgumentError("features", source.features, "give either --features or --data")
    if source.features is not None:
        method = MethodConfig("fc", "rows", public=rows.public, rooted=rows.rooted)
        return TrainConfig(DataConfig(str(source.features)), method=method)
    method = MethodConfig("fc", source.model, weights=source.weights, size=source.size, public=rows.public, rooted=rows.rooted)
    return TrainConfig(DataConfig(str(source.data), source.data_dir), method=method)


@dataclass(frozen=True)
class Resume:
    """Continue a run that was stopped; its result is that of the uninterrupted run, bit for bit."""

    run: tyro.conf.Positional[Path]
    log: Log | None = None
    """bar, json or quiet [as the run was started]."""

    def __call__(self) -> None:
        from sfumato.runs import commands

        commands.resume(self.run, self.log)


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a finished run's model on test images."""

    run: tyro.conf.Positional[Path]
    data: str | None = None
    """Another data set with the same classes [the run's own]."""
    data_dir: Path | None = None
    split: Literal["test", "validation"] = "test"

    def __call__(self) -> None:
        from sfumato.runs import commands

        commands.evaluate(self.run, self.data, self.data_dir, self.split)


@dataclass(frozen=True)
class Predict:
    """Classify image files or feature rows with a finished run's model (needs only its model.json and model.safetensors)."""

    run: tyro.conf.Positional[Path]
    images: tyro.conf.Positional[list[Path]]
    """Image files; for a run of `sfumato fit`, feature rows (a store or a file, labels are not needed)."""
    json: bool = False
    """Print one JSON object per image or row, with all probabilities."""

    def __call__(self) -> None:
        from sfumato.runs import commands

        commands.predict(self.run, self.images, self.json)


@dataclass(frozen=True)
class Report:
    """Write a finished run's report.html again, and print its privacy statement."""

    run: tyro.conf.Positional[Path]

    def __call__(self) -> None:
        from sfumato.runs import commands

        commands.report(self.run)


@dataclass(frozen=True)
class Audit:
    """Attack a finished run's trainer: a lower bound on epsilon beside the one claimed, in audit.json and the report."""

    run: tyro.conf.Positional[Path]
    attack: Literal["whitebox", "one-run", "blackbox", "lira"] = "whitebox"
    """whitebox: every release is seen, against known gradients | one-run: images with wrong labels, one training |
    blackbox: many small models, the final one is seen | lira: membership inference on the run's own model."""
    size: int | None = None
    """Canaries, images, models or shadow models [a few minutes' worth for a small run]."""
    images: int = 0
    """whitebox: so many of the run's training images train along with the canaries."""
    seed: int | None = None
    """Fixes the attack's coins and its trainings' noise [the operating system's entropy]."""
    log: Log = "bar"

    def __call__(self) -> None:
        from sfumato.runs import commands

        commands.audit(self.run, self.attack, self.size, self.images, self.seed, self.log)


@dataclass(frozen=True)
class Calibrate:
    """The noise multiplier that DP-SGD with Poisson sampling needs for a privacy budget."""

    epsilon: float
    n: int
    """Training examples."""
    batch: int
    """Expected batch size."""
    steps: int
    delta: float | None = None
    """[the largest power of ten below 1/n]"""

    def __call__(self) -> None:
        from sfumato.runs import accounting

        print(accounting.calibrate(self.epsilon, self.delta, self.n, self.batch, self.steps))


@dataclass(frozen=True)
class Account:
    """The epsilon of a ledger (a file or a run directory), or of DP-SGD with the given numbers."""

    ledger: tyro.conf.Positional[Path | None] = None
    noise_multiplier: float | None = None
    n: int | None = None
    batch: int | None = None
    steps: int | None = None
    delta: float | None = None
    """[the ledger's own, or the largest power of ten below 1/n]"""

    def __call__(self) -> None:
        from sfumato.runs import accounting

        if self.ledger is not None:
            print(accounting.of_ledger(self.ledger, self.delta))
        else:
            print(accounting.of_numbers(self.noise_multiplier, self.delta, self.n, self.batch, self.steps))


@dataclass(frozen=True)
class List:
    """The named data sets."""

    def __call__(self) -> None:
        from sfumato.runs import commands

        commands.list_data()


@dataclass(frozen=True)
class Info:
    """What is known of a data set without decoding an image."""

    data: tyro.conf.Positional[str]
    data_dir: Path | None = None
    unit: str | None = None
    """Count units too: a regular expression on file names or a column, as for `sfumato train`."""

    def __call__(self) -> None:
        from sfumato.runs import commands

        commands.data_info(self.data, self.data_dir, self.unit)


@dataclass(frozen=True)
class Data:
    """Named data sets: what there is, and what is on this machine."""

    what: tyro.conf.OmitSubcommandPrefixes[
        Annotated[List, tyro.conf.subcommand("list")] | Annotated[Info, tyro.conf.subcommand("info")]
    ]

    def __call__(self) -> None:
        self.what()


@dataclass(frozen=True)
class Models:
    """The networks: parameters, cost of one image, resolution, public weights that fit."""

    name: tyro.conf.Positional[str | None] = None
    """Only this one, in more detail."""
    json: bool = False

    def __call__(self) -> None:
        from sfumato.runs import models

        print(models.show(self.name, self.json))


Command = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Recipes, tyro.conf.subcommand("recipes")]
    | Annotated[Pretrain, tyro.conf.subcommand("pretrain")]
    | Annotated[Features, tyro.conf.subcommand("features")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Tune, tyro.conf.subcommand("tune")]
    | Annotated[Resume, tyro.conf.subcommand("resume")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Audit, tyro.conf.subcommand("audit")]
    | Annotated[Calibrate, tyro.conf.subcommand("calibrate")]
    | Annotated[Account, tyro.conf.subcommand("account")]
    | Annotated[Data, tyro.conf.subcommand("data")]
    | Annotated[Models, tyro.conf.subcommand("models")]
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Errors of the user's making are one line on standard error and exit code 2."""
    try:
        _parse(sys.argv[1:] if arguments is None else arguments)()
    except SfumatoError as error:
        print(f"sfumato: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(f"sfumato: {error.filename or 'the disk'}: {error.strerror}; nothing is lost: make room or mend the permissions, "
              "then `sfumato resume` the run, or begin it again if it has no directory yet", file=sys.stderr)  # fmt: skip
        sys.exit(2)
    except KeyboardInterrupt:
        print("sfumato: stopped; `sfumato resume` and the run's directory continue it if it had begun", file=sys.stderr)
        sys.exit(130)


def _parse(arguments: list[str]) -> Callable[[], None]:
    """The command. What the parser says of wrong arguments, in a box over many lines, becomes one line."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(Command, prog="sfumato", description=_ABOUT, args=arguments, config=(tyro.conf.DisallowNone,))
    except SystemExit as end:
        if end.code in (None, 0):
            raise
        words = " ".join(line.strip("│╭╮╰╯─ ") for line in said.getvalue().splitlines())
        problem = words.removeprefix("Parsing error").removeprefix("Required options").split("For full helptext")[0]
        where = " ".join(["sfumato", *(word for word in arguments[:1] if not word.startswith("-")), "--help"])
        print(f"sfumato: {' '.join(problem.split())} (see `{where}`)", file=sys.stderr)
        sys.exit(2)


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)

_ABOUT = "Differentially private image classification: from a folder of images to a private model and a report."


if __name__ == "__main__":
    main()
