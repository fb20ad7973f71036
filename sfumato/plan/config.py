"""What a user may ask of a training run. Plain facts: importing this module imports neither JAX nor
NumPy."""

import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from sfumato.core.checks import choice, fraction, positive, probability, whole
from sfumato.core.errors import ArgumentError, RunError
from sfumato.privacy.relations import ADD_OR_REMOVE, RELATIONS, Relation

METHODS = ("auto", "dp-fc", "dp-sgd", "fc", "ls", "newton", "sgd", "adam", "lamb", "means")
OPTIMIZERS = ("sgd", "momentum", "adam", "lamb")
Log = Literal["bar", "json", "quiet"]
SamplerName = Literal["poisson", "full", "truncated", "cyclic", "fixed"]


@dataclass(frozen=True)
class DataConfig:
    """Which images."""

    data: str = ""
    """A named data set (see `sfumato data list`), a folder with one sub-folder of images per class,
    a .npz file, or package.module:function of your own, () -> (images, labels)."""
    data_dir: Path | None = None
    """Where named data sets lie or are downloaded to [$SFUMATO_DATA, or the user's cache]."""
    validation: float = 0.0
    """Share of the training images held out for tuning. The run is then evaluated on them and the
    test set stays unseen. Where the data set has a validation split of its own, that is used,
    whatever the share."""
    test_fraction: float = 0.2
    """Share held out as test set where a data set has neither a test nor a validation split of its
    own."""
    share: float = 1.0
    """Share of the training images that is used at all."""
    resize: int | None = None
    """Shorter side in pixels; the center square is kept."""
    gray: bool = False
    """Read images as one gray channel."""
    skip_unreadable: bool = False
    """Leave unreadable files out instead of stopping."""

    def check(self) -> None:
        """Raise ArgumentError for values that no data set could make right."""
        if not self.data:
            raise ArgumentError(
                "data", self.data, "name a data set (`sfumato data list`), a folder or a .npz file"
            )
        fraction("validation", self.validation)
        fraction("test_fraction", self.test_fraction)
        probability("share", self.share)


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


@dataclass(frozen=True)
class PrivacyConfig:
    """What is promised."""

    epsilon: float | None = None
    """The privacy budget of the whole run [3, or the recipe's]."""
    delta: float | None = None
    """[the largest power of ten that is at most 1/(10 n) and 1e-5]"""
    relation: Relation = ADD_OR_REMOVE
    """Which training sets are neighbors: one example is there or not | its contribution is nothing
    | it is any other. The number of examples is public in the last two. replace-one asks for twice
    the noise of full batches."""
    insecure_seed: int | None = None
    """FOR TESTS: fixes the secret noise and sampling too, which voids the guarantee."""
    noise: Literal["gaussian", "lattice"] = "gaussian"
    """lattice: whole multiples of a public step, so that the last bits of a release tell nothing;
    slower."""
    noise_rng: Literal["philox", "chacha"] = "philox"
    """chacha: all secret randomness by ChaCha20, a cryptographic generator (needs the extra
    `sfumato[chacha]`)."""

    @property
    def budget(self) -> float:
        """epsilon, as it was given or not."""
        return 3.0 if self.epsilon is None else self.epsilon


@dataclass(frozen=True)
class MethodConfig:
    """How to learn. Values left out follow published rules, from public facts only; `--dry-run`
    shows them."""

    method: str = "auto"
    """auto | dp-fc (descent on fixed features, whitened in blocks) | dp-sgd | linear heads on fixed
    features: fc (feature covariance) | ls (least squares) | newton | sgd | adam | lamb | means."""
    model: str = "auto"
    """Fixed features: patches+scattering | patches | scattering | scatternet | encoder |
    encoder+patches+scattering. Trained end to end: cnn | wrn-16-4 | wrn-D-W, or
    package.module:function of your own, (shape, classes, key) -> a network of one image. With
    --weights: the network they are for, where they do not say so themselves."""
    weights: str | None = None
    """Public weights: a file, or a name such as timm/vit_base_patch16_224.augreg_in21k. They are
    not learned privately, so what they were learned from must be public."""
    train: str | None = None
    """With --weights: head (on features computed once) | last:K (blocks) | norms | bias | lora:R |
    all [head]."""
    size: int | None = None
    """Side in pixels to which a network resizes its images [its own, or as the weights say]."""
    batch: int | None = None
    """Expected batch size; dp-sgd, fc and the first-order heads."""
    steps: int | None = None
    """Number of steps."""
    sampler: SamplerName | None = None
    """dp-sgd, who takes part in a step: poisson, each by a coin of its own | full, all | truncated,
    poisson cut at --truncate | cyclic, poisson in --cycle groups that take turns | fixed, exactly
    --batch (not for add-or-remove-one) [poisson; full for a batch of everybody]."""
    truncate: int | None = None
    """--sampler truncated: the largest batch there can be [five standard deviations above the
    mean]."""
    cycle: int | None = None
    """--sampler cyclic: number of groups."""
    noise_bands: int | None = None
    """dp-sgd: correlated noise, each step takes back a part of that of the B - 1 steps before.
    Examples take turns, in B groups or more (--sampler cyclic). Pays for small batches and a large
    epsilon: --dry-run tells how much."""
    optimizer: str | None = None
    """dp-sgd: sgd | momentum | adam | lamb [sgd]."""
    learning_rate: float | None = None
    momentum: float | None = None
    """0 is none; dp-sgd, sgd, adam, lamb."""
    clip_norm: float | None = None
    """Largest L2 norm of one example's gradient."""
    views: int | None = None
    """dp-sgd: augmented views of an example per step (0: the image as it is)."""
    ema: float | None = None
    """dp-sgd: decay of the averaged parameters, which become the model (0: none)."""
    physical: int | None = None
    """dp-sgd: examples on the device at once; bounds memory, does not change the result."""
    public: Path | None = None
    """Linear heads: features of public examples (a file or a feature store), for centering and
    directions that cost nothing."""
    rooted: bool = False
    """Linear heads: signed square roots of the features first; suits those of a ReLU network."""
    per_class: bool = False
    """ls, newton: a matrix of second moments for each class instead of a shared one."""


@dataclass(frozen=True)
class RunConfig:
    """Where the results go and what is said meanwhile."""

    out: Path | None = None
    """Run directory to create [runs/NAME]."""
    seed: int = 0
    """Public: initial weights and splits. Noise, sampling and augmentation never depend on it."""
    checkpoint_seconds: float = 30.0
    """Time between checkpoints."""
    show_images: bool = False
    """Show misclassified evaluation images in the report; they may be private too."""
    log: Log = "bar"
    """bar: progress bars; json: one JSON object per line; quiet: only the result."""
    dry_run: bool = False
    """Print the plan and stop; no image is read."""


@dataclass(frozen=True)
class Published:
    """A published result to follow: recipe as `plan/recipes.py` reads it. scale: of images, batch
    and steps. device_memory: GB. device_flops: floating-point operations per second, sustained.
    """

    recipe: str
    scale: float | None
    device_memory: float
    device_flops: float


@dataclass(frozen=True)
class FeaturesConfig:
    """What `sfumato features` is asked for."""

    data: DataConfig
    out: Path
    model: str = "auto"
    weights: str | None = None
    size: int | None = None
    dtype: Literal["float16", "float32"] = "float16"
    log: Log = "bar"
    unit: str | None = None


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training run is made from."""

    data: DataConfig
    privacy: PrivacyConfig = field(default_factory=PrivacyConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    run: RunConfig = field(default_factory=RunConfig)
    units: UnitConfig = field(default_factory=UnitConfig)

    def check(self) -> None:
        """Raise ArgumentError for values that no data set could make right."""
        positive("epsilon", self.privacy.budget)
        self.data.check()
        choice("relation", self.privacy.relation, RELATIONS)
        self.units.check()
        choice("method", self.method.method, METHODS)
        if self.method.noise_bands is not None:
            whole("noise_bands", self.method.noise_bands, at_least=2)
            if self.privacy.noise == "lattice":
                raise ArgumentError(
                    "noise",
                    "lattice",
                    "correlated noise is not drawn on a lattice; leave out --noise or "
                    "--noise-bands",
                )
        if self.method.sampler is not None:
            choice("sampler", self.method.sampler, get_args(SamplerName))
        if self.method.optimizer is not None:
            choice("optimizer", self.method.optimizer, OPTIMIZERS)
        for name in ("batch", "steps", "truncate", "cycle", "physical", "size"):
            if (value := getattr(self.method, name)) is not None:
                whole(name, value)
        for name in ("learning_rate", "clip_norm"):
            if (value := getattr(self.method, name)) is not None:
                positive(name, value)
        for name in ("momentum", "ema"):
            if (value := getattr(self.method, name)) is not None:
                fraction(name, value)
        if self.method.views is not None:
            whole("views", self.method.views, at_least=0)
        whole("seed", self.run.seed, at_least=0)
        positive("checkpoint_seconds", self.run.checkpoint_seconds)

    @property
    def out(self) -> Path:
        """The run directory: as given, or runs/ and the data set's name."""
        return (
            self.run.out
            if self.run.out is not None
            else Path("runs") / Path(self.data.data.rpartition(":")[2]).stem
        )

    def to_json(self) -> dict[str, Any]:
        """Flat, name -> value."""
        sections = asdict(self).values()
        return {
            name: str(value) if isinstance(value, Path) else value
            for part in sections
            for name, value in part.items()
        }

    @classmethod
    def from_json(cls, flat: dict[str, Any]) -> "TrainConfig":
        """The inverse of `to_json`. Raises RunError for names this version does not know."""
        if "procedure" in flat:
            raise RunError(
                "config.json: this run was begun from Python by sf.run, and its method is not in the directory; "
                "call sf.run with the same method and out="
            )
        parts: dict[str, Any] = {}
        rest = dict(flat)
        kinds = {
            "data": DataConfig,
            "privacy": PrivacyConfig,
            "method": MethodConfig,
            "run": RunConfig,
            "units": UnitConfig,
        }
        for section, kind in kinds.items():
            own = {each.name: rest.pop(each.name) for each in fields(kind) if each.name in rest}
            parts[section] = kind(**{name: _path(name, value) for name, value in own.items()})
        if rest:
            raise RunError(
                f"config.json: unknown entries {', '.join(sorted(rest))}; use the version that wrote it"
            )
        return cls(**parts)


def _path(name: str, value: Any) -> Any:
    return Path(value) if name in ("data_dir", "out", "public") and value is not None else value


def refuse(argument: str, value: Any, method: str) -> None:
    """For settings that a method does not have."""
    if value is not None:
        raise ArgumentError(
            argument,
            value,
            f"method {method} has no such setting; leave it out or choose another --method",
        )
