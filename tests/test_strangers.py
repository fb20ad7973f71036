"""What three strangers tried: someone at a hospital, someone with a loss of their own, and a user of
scikit-learn. What cannot be right is refused in one line, before anything is paid."""

import dataclasses
import io
import json
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jax
import numpy as np
import optax
import pytest
from PIL import Image
from run_helpers import refused, sfumato, succeeds, tree

import sfumato as sf
from sfumato.cli.parser import Command
from sfumato.clip import Sensitivity
from sfumato.core.errors import said
from sfumato.data.source import from_arrays
from sfumato.solve.public_rows import check_public

N, D = 16, 3
RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((N, D)).astype(np.float32)
PARAMS = {"w": np.zeros(D, np.float32)}
QUIET: dict[str, Any] = {"log": "quiet", "guarantee": sf.Guarantee(3.0, 1e-3)}


def loss(params: Any, row: Any) -> jax.Array:
    return (row @ params["w"]) ** 2


def method(params: Any = PARAMS, data: Any = ROWS, **change: Any) -> sf.DPSGD:
    own: dict[str, Any] = {"optimizer": optax.sgd(0.1), "sampler": sf.FullBatch(steps=2)}
    own |= {"loss": loss, "noise": sf.Gaussian(4.0)} | change
    return sf.DPSGD(params=params, data=data, **own)


# -- a loss of one's own


def test_a_method_stays_as_it_was_made_so_that_its_price_is_that_of_its_draws() -> None:
    made = method(sampler=sf.Poisson(batch_size=8, steps=2))
    for name in (each.name for each in dataclasses.fields(made)):
        with pytest.raises(sf.ArgumentError, match=f"{name}=.*stays as it was made"):
            setattr(made, name, sf.Poisson(batch_size=1, steps=2, n=N))
    for change in ({"clip_norm": 2.0}, {"augment": lambda e, k: e}, {"loss": loss}, {"data": ROWS}):
        with pytest.raises(sf.ArgumentError, match=f"{next(iter(change))}=.*DPSGD\\(loss"):
            dataclasses.replace(made, **change)
    other = dataclasses.replace(made, sampler=sf.Poisson(batch_size=2, steps=2))
    assert (made.event(0).rate, other.event(0).rate) == (8 / N, 2 / N)  # type: ignore[attr-defined]
    key = sf.SecretKey.from_insecure_seed(0)
    drawn = sum(mask.sum() for step in range(2) for _, mask in other._feed.step(key, step))
    assert drawn == sum(len(other.sampler.indices(key, step)) for step in range(2))


@pytest.mark.parametrize(
    "leaf, says",
    [
        (np.arange(3), "k: int"),
        (1, "k: int"),
        (np.array([True]), "k: bool"),
        (np.zeros(2, complex), "k: complex128"),
        ("relu", "k: str"),
        (jax.nn.relu, "k: custom_jvp"),
        (partial(jax.random.key, 0), "k: key<fry>"),
        (np.array([0.0, np.nan]), "k: NaN or infinity"),
    ],
    ids=("int", "1", "bool", "complex", "text", "function", "key", "NaN"),
)
def test_what_cannot_be_trained_is_no_parameter(leaf: Any, says: str) -> None:
    with pytest.raises(sf.ArgumentError, match="params=") as error:
        method({**PARAMS, "k": leaf() if isinstance(leaf, partial) else leaf})
    assert says in str(error.value)


@pytest.mark.parametrize("norm", [0, 0.0, {}, -1.0], ids=repr)
def test_a_clip_norm_that_is_none_does_not_become_the_default(norm: Any) -> None:
    with pytest.raises(sf.ArgumentError, match="clip_norm="):
        method(clip_norm=norm)


class OneByOne:
    def __len__(self) -> int:
        return N

    def __getitem__(self, index: Any) -> Any:
        return ROWS[int(index)]


class Named(OneByOne):
    def __getitem__(self, indices: Any) -> Any:
        return ROWS[indices], np.array([f"patient {k}" for k in indices])


class Restless(OneByOne):
    def __getitem__(self, indices: Any) -> Any:
        return ROWS[indices] + RNG.random()


def no_number(model: Any) -> Any:
    return "good"


@pytest.mark.parametrize(
    "change, says",
    [
        ({"data": OneByOne()}, ("data=", "vector of int64")),
        ({"data": ROWS.tolist()}, ("data=", "sf.data.Arrays")),
        ({"data": {"row": ROWS}}, ("data=", "sf.data.Arrays")),
        ({"data": Named()}, ("data=", "arrays of numbers")),
        ({"data": Restless()}, ("data[indices] must give the same",)),
        ({"optimizer": optax.polyak_sgd()}, ("optimizer=", "released gradients")),
        ({"optimizer": optax.add_noise(0.1, 0.5, 0)}, ("optimizer=", "key of jax.random")),
        ({"loss": lambda p, e: jax.lax.pmean(loss(p, e), "batch")}, ("loss=",)),
    ],
    ids=("one by one", "list", "dict", "text", "restless", "polyak", "noisy", "collective"),
)
def test_what_does_not_fit_the_loop_is_said_before_it_begins(
    change: dict[str, Any], says: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(sf.SfumatoError) as error:
        sf.run(method(**change), out=tmp_path / "run", **QUIET)
    assert all(words in str(error.value) for words in says), error.value
    ledger = tmp_path / "run" / "ledger.jsonl"
    assert not ledger.exists() or sf.Ledger.read(ledger.parent).epsilon() == 0


def test_a_measure_that_is_no_number_costs_no_second_payment(tmp_path: Path) -> None:
    for wrong in (no_number, lambda model: None, lambda model: np.ones(2)):
        with pytest.raises(sf.ArgumentError, match="evaluate="):
            sf.run(method(), out=tmp_path / "run", evaluate=wrong, **QUIET)
    sf.run(method(), out=tmp_path / "run", evaluate=lambda model: 0.5, **QUIET)
    assert sf.Ledger.read(tmp_path / "run").releases == 2


def test_labels_outside_of_the_classes_are_not_passed_over() -> None:
    with pytest.raises(sf.ArgumentError, match="labels='-1 to 14': give classes from 0 to 14"):
        sf.FeatureCovariance(ROWS, np.arange(N) - 1, 15)


@dataclasses.dataclass
class Total:
    """Of rows of norm at most 1; `told` is what one may change, `spoil` what is done to the sum."""

    told: tuple[float, float, float] = (1.0, 1.0, 2.0)
    spoil: Any = dict
    prices: tuple[float, ...] = (4.0,)
    name: str = "total"
    n: int = N
    steps: int = 1
    asked: int = 0

    def start(self) -> Any:
        return {"total": np.zeros(D, np.float32)}

    def event(self, step: int) -> Any:
        self.asked += 1
        return sf.Gaussian(self.prices[(self.asked - 1) % len(self.prices)]).event

    def mechanism(self, step: int) -> Any:
        return sf.Gaussian(4.0)

    def measure(self, state: Any, step: int, key: Any) -> Any:
        rows = ROWS / np.maximum(1, np.linalg.norm(ROWS, axis=1, keepdims=True))
        found = self.spoil({"total": rows.sum(0)})
        return sf.BoundedSum(found, Sensitivity(*self.told)) if isinstance(found, dict) else found

    def absorb(self, state: Any, step: int, released: Any) -> Any:
        return released


@pytest.mark.parametrize(
    "change, says",
    [
        ({"told": (1.0, 1.5, 2.0)}, "sensitivity="),
        ({"told": (1.0, 1.0, 2.5)}, "sensitivity="),
        ({"spoil": lambda total: {"total": total["total"] * np.nan}}, "measure='NaN or infinity'"),
        ({"spoil": lambda total: {"total": total["total"] + 1j}}, "measure='a sum of complex"),
        ({"spoil": lambda total: total["total"]}, "measure='ndarray'"),
    ],
    ids=("zeroed out", "replaced", "NaN", "complex", "no sum"),
)
def test_a_sum_that_noise_does_not_hide_is_not_released(change: Any, says: str) -> None:
    released: list[Any] = []
    with pytest.raises(sf.ArgumentError) as error, sf.Ledger.temporary(1e-3, 3.0) as ledger:
        key = sf.SecretKey.from_insecure_seed(0)
        sf.run(Total(**change), ledger, key, after_step=lambda done, state: released.append(state))
    assert says in str(error.value) and not released


def test_the_event_that_noise_is_compared_with_is_the_one_that_is_paid() -> None:
    """Also where a procedure says another one each time it is asked."""
    for first in range(4):
        procedure = Total(prices=(4.0, 8.0), asked=first)
        with sf.Ledger.temporary(1e-3, 3.0) as ledger:
            try:
                sf.run(procedure, ledger, sf.SecretKey.from_insecure_seed(0))
            except sf.ArgumentError as error:
                assert "is paid for as" in str(error) and not ledger.releases
            else:
                assert [event.noise_multiplier for event in ledger.tally] == [4.0]


@pytest.mark.parametrize("spoiled", [2, 12])
def test_rows_that_count_as_nothing_are_told_of(spoiled: int, tmp_path: Path) -> None:
    rows, labels = ROWS.copy(), np.arange(N) % 2
    rows[:spoiled] = np.nan
    for made in (sf.FeatureCovariance(rows, labels, 2), sf.linear_head(rows, labels, "means")):
        ready, out = sf.calibrate(made, epsilon=3.0, delta=1e-3), tmp_path / made.name
        if spoiled > N / 2:
            with pytest.raises(sf.DataError, match="12 of 16 rows hold NaN"):
                sf.run(ready, out=out, log="quiet")
            assert not out.exists()
        else:
            with pytest.warns(UserWarning, match="2 of 16 rows hold NaN"):
                sf.run(ready, out=out, log="quiet")


# -- scikit-learn


def test_a_ledger_for_groups_pays_for_no_fit_that_does_not_know_them(tmp_path: Path) -> None:
    rows, labels, patients = ROWS, np.arange(N) % 2, np.arange(N) // 2
    with sf.Ledger.create(tmp_path, delta=1e-3, epsilon_max=9.0, unit="patient") as ledger:
        classifier = sf.DPLinearClassifier(ledger=ledger, method="means")
        with pytest.raises(
            sf.ArgumentError, match="groups=None: the ledger promises for one patient"
        ):
            classifier.fit(rows, labels)
        assert not ledger.releases
        classifier.fit(rows, labels, groups=patients)
        assert ledger.releases


def test_pixels_that_are_not_from_0_to_1() -> None:
    images, labels = RNG.random((8, 8, 8)).astype(np.float32), np.arange(8) % 2

    def says(pixels: Any) -> str:
        with pytest.raises(sf.SfumatoError) as error:
            sf.DPImageClassifier(method="means", model="scattering").fit(pixels, labels)
        return str(error.value)

    with pytest.warns(UserWarning, match=r"floats down to -.*\(x \+ 1\) / 2"):
        from_arrays(2 * images - 1, labels)
    assert "divide by 255" in says(255 * images)
    assert "hold NaN or infinity" in says(images * np.inf)
    with pytest.raises(sf.ArgumentError, match="several shapes"):
        from_arrays([image[: 7 + k % 2] for k, image in enumerate(images)], labels)


@pytest.mark.parametrize(
    "wrong",
    [{"model": None}, {"model": 7}, {"seed": -1}, {"epsilon": 10**400}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_arguments_of_an_estimator(wrong: dict[str, Any]) -> None:
    images = RNG.integers(0, 256, (8, 8, 8)).astype(np.uint8)
    with pytest.raises(sf.ArgumentError, match=f"{next(iter(wrong))}="):
        sf.DPImageClassifier().set_params(**wrong).fit(images, np.arange(8) % 2)


def test_private_rows_are_no_public_ones() -> None:
    """Their mean and directions would be part of the model without noise."""
    rows, labels, others = ROWS, np.arange(N) % 2, RNG.standard_normal((40, D))
    for public in (rows, rows[:3].astype(np.float16), np.concatenate([others, rows])):
        classifier = sf.DPLinearClassifier(public=public)
        with pytest.raises(sf.ArgumentError, match=r"public=.*rows of the training set"):
            classifier.fit(rows, labels)
        assert not hasattr(classifier, "epsilon_")
    few = sf.DPLinearClassifier(public=np.concatenate([others, rows[:2]]), method="means")
    with pytest.warns(UserWarning, match="2 of 42 different rows are rows of the training set"):
        few.fit(rows, labels)


def test_public_rows_that_are_others_are_taken() -> None:
    """Whatever their scale; and rows of few values, which agree by chance."""
    few = RNG.integers(0, 2, (2, 200, 4)).astype(np.float32)
    assert "not count them" in check_public(*few)
    for scale in (1e6, 1e-9):
        assert check_public(scale * RNG.random((50, D)), scale * RNG.random((50, D))) == ""
    with pytest.raises(sf.ArgumentError, match="public="):
        rows = RNG.standard_normal((50, 9))
        check_public(np.maximum(rows, 0), np.where(rows > 0, rows, -0.0))


# -- a folder of files


def test_private_rows_are_no_public_ones_from_the_command_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", X_train=ROWS, y_train=np.arange(N) % 2)
    np.save(tmp_path / "copy.npy", ROWS)
    fit = ("fit", "--features", tmp_path / "rows.npz", "--out", tmp_path / "run", "--log", "quiet")
    for public in ("rows.npz", "copy.npy"):
        outcome = sfumato(*fit, "--test-fraction", "0.3", "--public", tmp_path / public)
        assert outcome.code == 2 and "rows of the training set" in outcome.err, outcome
        assert not (tmp_path / "run").exists(), "nothing was released, so nothing is left"


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of images of patients, with names as people give them."""
    root = tmp_path_factory.mktemp("ward") / "Röntgen Bilder"
    root.mkdir()
    lines = ["Datei;Befund;Patient;Gerät"]
    for k in range(12):
        name = f"Aufnahme {k} (groß).png"
        Image.fromarray(RNG.integers(0, 2**16, (9, 8 + k % 2)).astype(np.uint16)).save(root / name)
        lines.append(f"{name};{'gesund' if k % 2 else 'Lungenödem'};P{k // 2};A")
    (root / "Befunde.csv").write_text("\n".join(lines), "utf-8-sig")
    return root


def table(ward: Path) -> tuple[object, ...]:
    return ("--data", ward / "Befunde.csv", "--label", "Befund", "--path", "Datei", "--resize", "8")


def test_a_unit_that_is_no_column_names_those_that_are(ward: Path) -> None:
    dry = ("train", *table(ward), "--dry-run", "--no-estimate", "--test-fraction", "0.4")
    refused(ward, *dry, "--unit", "patient", says=("unit='patient'", "Datei, Befund, Patient, Ger"))
    assert "8 training units" in succeeds(*dry, "--unit", "Datei", "--images-per-unit", "1")


@pytest.mark.slow
def test_a_store_is_not_continued_with_other_images(ward: Path, tmp_path: Path) -> None:
    """Of the same names, labels and sizes."""
    more = ("--model", "scattering", "--log", "quiet", "--test-fraction", "0.4")

    def features(out: str, *also: object) -> tuple[object, ...]:
        return ("features", *table(ward), *more, "--out", tmp_path / out, *also)

    succeeds(*features("whole"))
    succeeds(*features("parts", "--shard", "0/2"))
    before = tree(tmp_path)
    last = ward / "Aufnahme 11 (groß).png"
    kept = last.read_bytes()
    with Image.open(last) as image:
        pixels = np.asarray(image).copy()
    pixels[0, 0] ^= 2**15
    Image.fromarray(pixels).save(last)
    refused(tmp_path, *features("whole"), says=("other images", "--out"))
    refused(tmp_path, *features("parts", "--shard", "0/2"), says=("other images", "--out"))
    outcome = sfumato(*features("parts", "--shard", "1/2"))
    assert outcome.code == 2 and "images is not that of share 0/2" in outcome.err, outcome
    assert not (tmp_path / "parts/manifest.json").exists()
    last.write_bytes(kept)
    succeeds(*features("whole"))
    assert {name: content for name, content in tree(tmp_path).items() if name in before} == before


@pytest.mark.slow
def test_a_fit_on_rows_of_units_says_whose_promise_it_makes(ward: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    more = ("--model", "scattering", "--log", "quiet", "--test-fraction", "0.2")
    succeeds("features", *table(ward), *more, "--unit", "Patient", "--out", store)
    dry = ("fit", "--features", store, "--method", "means", "--dry-run")
    with pytest.warns(UserWarning, match="--unit units"):
        assert "one image" in succeeds(*dry)
    assert "unit" in succeeds(*dry, "--unit", "units")
    manifest = json.loads((store / "manifest.json").read_text())
    del manifest["images"]  # as earlier versions wrote it
    (store / "manifest.json").write_text(json.dumps(manifest))
    assert "unit" in succeeds(*dry, "--unit", "units")
    again = ("features", *table(ward), *more, "--unit", "Patient", "--out", store)
    refused(tmp_path, *again, says=("earlier version", "--out"))


ALSO = {"predict": ("x.png",), "export": ("--to", "card")}
"""What a command needs beside a run."""


def of_a_run() -> list[str]:
    """The commands that take the directory of a run, but for `serve`, which needs an extra."""
    commands = [get_args(each) for each in get_args(Command)]
    taking = {how.name for kind, how in commands if get_type_hints(kind).get("run") is Path}
    return sorted(taking - {"serve"})


@pytest.mark.parametrize("command", of_a_run())
def test_what_is_no_run_is_said_to_be_none(command: str, tmp_path: Path) -> None:
    assert {"resume", "evaluate", "predict", "export", "report", "audit"} <= set(of_a_run())
    (tmp_path / "empty").mkdir()
    (tmp_path / "report.html").touch()
    for name in ("empty", "nowhere", "report.html"):
        refused(
            tmp_path, command, tmp_path / name, *ALSO.get(command, ()), says=(name, "`sfumato ")
        )


def test_code_from_outside_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, work = tmp_path / "code", tmp_path / "work"
    for folder in (code, work):
        folder.mkdir()
    (code / "plug_of_a_stranger.py").write_text("def dat():\n    return {}['oh']\n")
    monkeypatch.syspath_prepend(code)
    arguments = ("train", "--data", "plug_of_a_stranger:dat", "--out", work / "run")
    says = ("data=", "KeyError: 'oh'", "plug_of_a_stranger.py, line 2")
    refused(work, *arguments, says=says)


def test_a_file_that_is_no_image_is_called_that_without_an_address() -> None:
    with pytest.raises(OSError, match="0x") as error:
        Image.open(io.BytesIO(b"notes"))
    assert said(error.value) == "cannot identify image file"
