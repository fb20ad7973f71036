"""Every field of every file that a command leaves behind, and what stands behind it. No other field
may be written.

    public   settings, sizes, names of classes, random numbers: the same whatever the images are
    paid     computed from releases that the ledger lists, so covered by the run's (epsilon, delta)
    unpaid   computed from private images otherwise, or from the time and memory that it took: NOT covered by any epsilon

Whoever writes a file of a run has it checked here (`check`), so a field that this table does not
have stops the run before anybody can read it. docs/files.md is this table; a test holds it to that,
and another walks what the commands really write.

`sfumato tune` keeps secret how many fits there were (`SelectedEvent`), so a field of its files must
be more than allowed: it must be known not to tell that number. That is the column `selected`. Times
and memory do tell it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from sfumato.core.errors import RunError

Status = Literal["public", "paid", "unpaid"]


@dataclass(frozen=True)
class Field:
    """names: of places in the file, with spaces between; `a[].b` is b of every element of a, `a.*`
    all below a, `*` all.

    selected: may also be written where the release is the best of a secret number of fits.
    """

    file: str
    status: Status
    selected: bool
    names: str
    what: str


_TABLE = """
config.json | public | yes | data data_dir validation test_fraction share resize gray skip_unreadable max_pixels label findings path split unit images_per_unit unit_name | which images, as asked; paths may name people, so a report shows their last part only
config.json | public | yes | epsilon delta relation insecure_seed noise noise_rng rehearse | the promise that was asked for
config.json | public | yes | method model weights train size public rooted sampler noise_bands | the method that was asked for
config.json | public | yes | out seed checkpoint_seconds show_images log log_to dry_run | how the run was to be run
config.json | public | yes | procedure.* | of a run of `sf.run`: what the method says of itself, shapes and settings
plan.json | public | yes | name n n_validation n_test classes[] task shape[] unit images_per_unit grouping | the public facts of the data set: names and sizes, found before an image is decoded, and n, counted
plan.json | public | yes | epsilon delta relation mu insecure noise noise_rng mechanism accountant not_private.* | the promise, and how; or why there is none
plan.json | public | yes | method model parameters features trains size rooted clip_norm settings.* sampler.* releases[].* | all that will happen: a function of the settings and of the facts above
plan.json | public | yes | public.* weights.* | public rows and public weights: names, sizes, SHA-256, license
plan.json | public | yes | left_out.* | files that are not read, by their ending: no training image is among them
plan.json | public | yes | public_facts[] not_covered[] | sentences for the report, of the same facts
ledger.jsonl | public | yes | kind format delta epsilon_max relation unit context | the budget; a hash of config.json and plan.json
ledger.jsonl | public | yes | release event.* | what was paid for: planned before it happened
ledger.jsonl | public | yes | key hash | a fingerprint of the secret key, which is random; a hash of the lines so far
ledger.jsonl | unpaid | yes | time | when it was paid (of a choice: before its first fit)
metrics.jsonl | public | yes | step epsilon images | progress, and its price; of how many held-out images
metrics.jsonl | unpaid | yes | accuracy roc_auc roc_aucs[] roc_aucs[][] | exact, on held-out images: these are not covered, the training images are
metrics.jsonl | unpaid | no | measured.* | what a function given to `sf.run` found, on data of its own that are not covered
metrics.jsonl | unpaid | no | seconds | how long it took
state.safetensors | paid | yes | * | the last state of a method of `sf.run`
model.safetensors | paid | yes | * | the model, and public numbers such as fixed filters
model-not-private.safetensors | unpaid | no | * | in its place, of a run that promises nothing: `--epsilon inf`, `--rehearse`
model.json | public | yes | format model head shape[] classes[] input.* task | how to build the model
model.json | public | yes | privacy.epsilon privacy.delta privacy.relation privacy.insecure privacy.unit privacy.spent privacy.not_private | the promise in numbers, or that there is none
model.json | paid | yes | probe[] | the model's answer to an image of public noise
evaluation.json | public | yes | split n source | which images, and how many
evaluation.json | unpaid | yes | accuracy confusion[][] metrics.* findings[].* | exact, on held-out images: these are not covered, the training images are
result.json | public | yes | spent.epsilon spent.delta spent.releases spent.epsilon_max spent.complete | the ledger's account
result.json | public | yes | versions.sfumato versions.jax versions.dp-accounting versions.python | the software
result.json | unpaid | no | seconds.features seconds.training seconds.evaluation seconds.total peak_memory_bytes finished | how long it took, with how much memory, until when
result.json | unpaid | no | measured.* | as in metrics.jsonl, at the end
tune.json | public | yes | fits_on_average | what was asked
tune.json | paid | yes | recipe.* | the settings of the winner, which are chosen with it
images.json | unpaid | yes | [].png_base64 [].true [].predicted [].confidence | held-out images, with `--show-images`; they are in report.html, too
audit.json | public | yes | results[].attack results[].method results[].epsilon results[].delta results[].confidence results[].assumption results[].unpaid | which attack, on which claim
audit.json | unpaid | yes | results[].lower_bound results[].observations results[].seconds results[].details.* | what it measured; of the attacks with `unpaid` on the private images, so this is for their owner alone
report.html | unpaid | yes | * | the fields of the files above; of audit.json only what rests on no private image, unless `sfumato report --with-audit` asked for all
model_card.md | unpaid | yes | * | fields of plan.json, ledger.jsonl and result.json; accuracy
secret.key | unpaid | yes | * | the key of all secret randomness, until the run is complete
work/began.json | unpaid | yes | fingerprint stamp | of the images, and of the sizes and times of their files, under the secret key; until the run is complete
work/began.json | public | yes | environment.* | software, devices, processor, and how noise is drawn
work/sums.jsonl | unpaid | yes | release sum | keyed hashes of exact sums, until the run is complete
work/sizes.json | unpaid | yes | sizes[].step sizes[].physical_batch_size | how many examples were on the device at once, from which step on; until the run is complete
work/checkpoint/facts.json | public | yes | step ledger_lines ledger_hash | where the run stands
work/checkpoint/facts.json | paid | yes | sha256 | of the state
work/checkpoint/facts.json | unpaid | yes | seconds | how long it took so far
work/checkpoint/state.safetensors | paid | yes | * | the state between two steps: of releases alone
sweep.json | public | yes | spent.epsilon spent.delta points[].method points[].epsilon | what was asked, and its price
sweep.json | unpaid | yes | points[].accuracies[] | exact, on held-out images: these are not covered, the training images are
sweep.json | unpaid | yes | without_privacy | the accuracy of a model without any noise, learned from the private images
sweep.png | unpaid | yes | * | the fields of sweep.json
sweep.html | unpaid | yes | * | the fields of sweep.json
manifest.json | public | yes | format private name model map_hash preprocessing.* unit classes[] features dtype counts.* | what a feature store holds: names, sizes and settings
manifest.json | unpaid | yes | digests.* images.* | of private rows and images: who guesses them all could confirm the guess
estimator.safetensors | public | yes | format kind params.* classes.* features feature_names feature_names[] | what `save` of an estimator writes, under any name: its arguments, `public` rows too, names of classes, columns
estimator.safetensors | public | yes | plan.* epsilon | as in plan.json; what the fit has spent
estimator.safetensors | public | yes | head model.model model.head model.shape[] model.classes[] model.input model.input.* model.task | how to build the model
estimator.safetensors | paid | yes | model.probe[] | the model's answer to an image of public noise
progress.json | public | yes | train test | rows of a feature store that are done
calibration.json | public | yes | format n positive source | of which images, and how many
calibration.json | unpaid | yes | temperature threshold | of `sfumato evaluate --calibrate`: two numbers, computed from held-out images exactly, to two digits; whoever passes them on with the model passes on facts of images that are not covered
exported config.json | public | yes | architectures[] model_type sfumato_model sfumato_version num_labels problem_type id2label.* label2id.* input.* | of `sfumato export`, wherever it writes: how to call the model
exported config.json | public | yes | privacy.* | as in model.json
exported config.json | unpaid | yes | calibration.* | as in calibration.json, where there is one
exported model.onnx | paid | yes | * | the model, and public numbers; a stored temperature is not paid for
exported model.stablehlo | paid | yes | * | the model, and public numbers; a stored temperature is not paid for
exported call.py | public | yes | * | three lines of code
exported README.md | unpaid | yes | * | the fields of model_card.md
"""
"""A row each: file, status, whether of a choice too, names of places, what it is."""


def _read(line: str) -> Field:
    file, status, selected, names, what = line.split(" | ")
    return Field(file, status, selected == "yes", names, what)  # type: ignore[arg-type]


FIELDS = [_read(line) for line in _TABLE.split("\n") if line] + [
    Field(
        f"{split}.{kind}.npy",
        "unpaid",
        True,
        "*",
        f"{kind} of a feature store: as private as the images",
    )
    for split in ("train", "test")
    for kind in ("features", "labels", "names", "units")
]
"""The file `pretrain` writes is not here: it is learned from images that are public, without any
privacy, and says so."""


def declare(file: str, names: tuple[str, ...], what: str) -> None:
    """More fields, which are public, by whoever owns them: for flags, which a user chooses before any
    image is read."""
    FIELDS.append(Field(file, "public", True, " ".join(names), what))
    by_file.cache_clear()


@lru_cache(maxsize=1)
def by_file() -> Mapping[str, tuple[Field, ...]]:
    return {
        file: tuple(each for each in FIELDS if each.file == file)
        for file in {each.file: None for each in FIELDS}
    }


def places(value: Any, at: str = "") -> Iterator[str]:
    """The places of all numbers, texts and nulls inside of a JSON value, as `Field` names them."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from places(each, f"{at}.{name}" if at else str(name))
    elif isinstance(value, list | tuple) and {*map(type, value)} <= {int, float, str}:
        yield from [f"{at}[]"] * bool(value)  # millions of numbers are in one place
    elif isinstance(value, list | tuple):
        for each in value:
            yield from places(each, f"{at}[]")
    else:
        yield at


def find(file: str, place: str) -> Field | None:
    """The row that holds this place of a file; None where no row does."""
    return next(
        (
            field
            for field in by_file().get(file, ())
            if any(_holds(name, place) for name in field.names.split())
        ),
        None,
    )


def _holds(name: str, place: str) -> bool:
    if name == "*":
        return True
    below = name.removesuffix(".*")
    return place == below or (below != name and place.startswith((f"{below}.", f"{below}[")))


def check(file: str, value: Any, selected: bool = False) -> None:
    """Raise RunError if a place of `value` is not in the table, or, of a selected release, might
    tell what stays secret."""
    for place in dict.fromkeys(places(value)):
        field = find(file, place)
        if field is None:
            raise RunError(
                f"{file}: nobody decided whether its field {place!r} is paid for, so it must not be written; leave "
                "it out, or add it to the table of sfumato/privacy/fields.py with the reason"
            )
        if selected and not field.selected:
            raise RunError(
                f"{file}: its field {place!r} might tell among how many fits a choice was made; leave it out"
            )


def is_selected(plan: Mapping[str, Any]) -> bool:
    """Whether a plan, as in plan.json, releases the best of a secret number of fits."""
    return any(release.get("selected") is not None for release in plan["releases"])


def table() -> str:
    """The table in Markdown, for docs/files.md."""
    lines = ["| file | field | | of a choice, too | what it is |", "|---|---|---|---|---|"]
    for file, rows in by_file().items():
        for row in rows:
            names = ", ".join(f"`{name}`" for name in row.names.split())
            lines.append(
                f"| `{file}` | {names} | {row.status} | {'yes' if row.selected else 'no'} | {row.what} |"
            )
    return "\n".join(lines) + "\n"
