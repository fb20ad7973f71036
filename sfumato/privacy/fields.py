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


def _rows(file: str, *rows: tuple[Status, bool, str, str]) -> tuple[Field, ...]:
    return tuple(Field(file, *row) for row in rows)


FIELDS = (
    *_rows(
        "config.json",
        (
            "public",
            True,
            "data data_dir validation test_fraction share resize gray skip_unreadable max_pixels unit "
            "images_per_unit unit_name",
            "which images, as asked; paths may name people, so a report shows their last part only",
        ),
        (
            "public",
            True,
            "epsilon delta relation insecure_seed noise noise_rng",
            "the promise that was asked for",
        ),
        (
            "public",
            True,
            "method model weights train batch steps sampler truncate cycle learning_rate optimizer momentum "
            "clip_norm noise_bands views ema size physical_batch_size public rooted per_class",
            "the method that was asked for",
        ),
        (
            "public",
            True,
            "out seed checkpoint_seconds show_images log dry_run",
            "how the run was to be run",
        ),
        (
            "public",
            True,
            "procedure.*",
            "of a run of `sf.run`: what the method says of itself, shapes and settings",
        ),
    ),
    *_rows(
        "plan.json",
        (
            "public",
            True,
            "name n n_validation n_test classes[] shape[] unit images_per_unit grouping",
            "the public facts of the data set: names and sizes, found before an image is decoded, and n, counted",
        ),
        (
            "public",
            True,
            "epsilon delta relation mu insecure noise noise_rng mechanism accountant",
            "the promise, and how",
        ),
        (
            "public",
            True,
            "method model parameters features trains size rooted clip_norm settings.* sampler.* releases[].*",
            "all that will happen: a function of the settings and of the facts above",
        ),
        (
            "public",
            True,
            "public.* weights.*",
            "public rows and public weights: names, sizes, SHA-256",
        ),
        (
            "public",
            True,
            "left_out.*",
            "files that are not read, by their ending: no training image is among them",
        ),
        (
            "public",
            True,
            "public_facts[] not_covered[]",
            "sentences for the report, of the same facts",
        ),
    ),
    *_rows(
        "ledger.jsonl",
        (
            "public",
            True,
            "kind format delta epsilon_max relation unit context",
            "the budget; a hash of config.json and plan.json",
        ),
        ("public", True, "release event.*", "what was paid for: planned before it happened"),
        (
            "public",
            True,
            "key hash",
            "a fingerprint of the secret key, which is random; a hash of the lines so far",
        ),
        ("unpaid", True, "time", "when it was paid (of a choice: before its first fit)"),
    ),
    *_rows(
        "metrics.jsonl",
        ("public", True, "step epsilon", "progress, and its price"),
        (
            "unpaid",
            True,
            "accuracy",
            "exact, on held-out images: these are not covered, the training images are",
        ),
        (
            "unpaid",
            False,
            "measured.*",
            "what a function given to `sf.run` found, on data of its own that are not covered",
        ),
        ("unpaid", False, "seconds", "how long it took"),
    ),
    *_rows("state.safetensors", ("paid", True, "*", "the last state of a method of `sf.run`")),
    *_rows(
        "model.safetensors",
        ("paid", True, "*", "the model, and public numbers such as fixed filters"),
    ),
    *_rows(
        "model.json",
        ("public", True, "format model head shape[] classes[] input.*", "how to build the model"),
        (
            "public",
            True,
            "privacy.epsilon privacy.delta privacy.relation privacy.insecure privacy.unit privacy.spent",
            "the promise in numbers",
        ),
        ("paid", True, "probe[]", "the model's answer to an image of public noise"),
    ),
    *_rows(
        "evaluation.json",
        ("public", True, "split n source", "which images, and how many"),
        (
            "unpaid",
            True,
            "accuracy confusion[][] metrics.*",
            "exact, on held-out images: these are not covered, the training images are",
        ),
    ),
    *_rows(
        "calibration.json",
        ("public", True, "format n positive source", "of which images, and how many"),
        (
            "unpaid",
            True,
            "temperature threshold",
            "of `sfumato evaluate --calibrate`: two numbers, computed from held-out images exactly, to two digits; "
            "whoever passes them on with the model passes on facts of images that are not covered",
        ),
    ),
    *_rows(
        "result.json",
        (
            "public",
            True,
            "spent.epsilon spent.delta spent.releases spent.epsilon_max spent.complete",
            "the ledger's account",
        ),
        (
            "public",
            True,
            "versions.sfumato versions.jax versions.dp-accounting versions.python",
            "the software",
        ),
        (
            "unpaid",
            False,
            "seconds.features seconds.training seconds.evaluation seconds.total peak_memory_bytes finished",
            "how long it took, with how much memory, until when",
        ),
        ("unpaid", False, "measured.*", "as in metrics.jsonl, at the end"),
    ),
    *_rows(
        "tune.json",
        ("public", True, "fits_on_average", "what was asked"),
        ("paid", True, "recipe.*", "the settings of the winner, which are chosen with it"),
    ),
    *_rows(
        "images.json",
        (
            "unpaid",
            True,
            "[].png_base64 [].true [].predicted [].confidence",
            "held-out images, with `--show-images`; they are in report.html, too",
        ),
    ),
    *_rows(
        "audit.json",
        (
            "public",
            True,
            "results[].attack results[].method results[].epsilon results[].delta results[].confidence "
            "results[].assumption results[].unpaid",
            "which attack, on which claim",
        ),
        (
            "unpaid",
            True,
            "results[].lower_bound results[].observations results[].seconds results[].details.*",
            "what it measured; of the attacks with `unpaid` on the private images, so this is for their owner alone",
        ),
    ),
    *_rows(
        "report.html",
        (
            "unpaid",
            True,
            "*",
            "the fields of the files above; of audit.json only what rests on no private "
            "image, unless `sfumato report --with-audit` asked for all",
        ),
    ),
    *_rows(
        "model_card.md",
        ("unpaid", True, "*", "fields of plan.json, ledger.jsonl and result.json; accuracy"),
    ),
    *_rows(
        "secret.key",
        ("unpaid", True, "*", "the key of all secret randomness, until the run is complete"),
    ),
    *_rows(
        "work/began.json",
        (
            "unpaid",
            True,
            "fingerprint",
            "of the images, under the secret key; until the run is complete",
        ),
        ("public", True, "environment.*", "software, devices and processor"),
    ),
    *_rows(
        "work/sums.jsonl",
        ("unpaid", True, "release sum", "keyed hashes of exact sums, until the run is complete"),
    ),
    *_rows(
        "work/checkpoint/facts.json",
        ("public", True, "step ledger_lines ledger_hash", "where the run stands"),
        ("paid", True, "sha256", "of the state"),
        ("unpaid", True, "seconds", "how long it took so far"),
    ),
    *_rows(
        "work/checkpoint/state.safetensors",
        ("paid", True, "*", "the state between two steps: of releases alone"),
    ),
    *_rows(
        "sweep.json",
        (
            "public",
            True,
            "spent.epsilon spent.delta points[].method points[].epsilon",
            "what was asked, and its price",
        ),
        (
            "unpaid",
            True,
            "points[].accuracies[]",
            "exact, on held-out images: these are not covered, the training images are",
        ),
        (
            "unpaid",
            True,
            "without_privacy",
            "the accuracy of a model without any noise, learned from the private images",
        ),
    ),
    *_rows("sweep.png", ("unpaid", True, "*", "the fields of sweep.json")),
    *_rows("sweep.html", ("unpaid", True, "*", "the fields of sweep.json")),
    *_rows(
        "manifest.json",
        (
            "public",
            True,
            "format private name model map_hash preprocessing.* unit classes[] features dtype counts.*",
            "what a feature store holds: names, sizes and settings",
        ),
        (
            "unpaid",
            True,
            "digests.*",
            "of private rows: who guesses them all could confirm the guess",
        ),
    ),
    *_rows(
        "estimator.safetensors",
        (
            "public",
            True,
            "format kind params.* classes.* features feature_names feature_names[]",
            "what `save` of an estimator writes, under any name: its arguments, `public` rows too, names of classes, columns",
        ),
        ("public", True, "plan.* epsilon", "as in plan.json; what the fit has spent"),
        (
            "public",
            True,
            "head model.model model.head model.shape[] model.classes[] model.input model.input.*",
            "how to build the model",
        ),
        ("paid", True, "model.probe[]", "the model's answer to an image of public noise"),
    ),
    *_rows(
        "exported config.json",
        (
            "public",
            True,
            "architectures[] model_type sfumato_model sfumato_version num_labels id2label.* label2id.* input.*",
            "of `sfumato export`, wherever it writes: how to call the model",
        ),
        ("public", True, "privacy.*", "as in model.json"),
        ("unpaid", True, "calibration.*", "as in calibration.json, where there is one"),
    ),
    *(
        field
        for file in ("model.onnx", "model.stablehlo")
        for field in _rows(
            f"exported {file}",
            (
                "paid",
                True,
                "*",
                "the model, and public numbers; a stored temperature is not paid for",
            ),
        )
    ),
    *_rows("exported call.py", ("public", True, "*", "three lines of code")),
    *_rows("exported README.md", ("unpaid", True, "*", "the fields of model_card.md")),
    *_rows(
        "progress.json", ("public", True, "train test", "rows of a feature store that are done")
    ),
    *(
        field
        for split in ("train", "test")
        for kind in ("features", "labels", "names", "units")
        for field in _rows(
            f"{split}.{kind}.npy",
            ("unpaid", True, "*", f"{kind} of a feature store: as private as the images"),
        )
    ),
)
"""The file `pretrain` writes is not here: it is learned from images that are public, without any
privacy, and says so."""


@lru_cache(maxsize=1)
def by_file() -> Mapping[str, tuple[Field, ...]]:
    return {
        file: tuple(each for each in FIELDS if each.file == file)
        for file in {each.file: None for each in FIELDS}
    }


def places(value: Any, at: str = "") -> Iterator[str]:
    """The place of every number, text or null inside of a JSON value, as `Field` names them."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from places(each, f"{at}.{name}" if at else str(name))
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
