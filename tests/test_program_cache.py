"""The user's cache of compiled programs: where it is, how it is switched off, and that nothing private
is in it."""

import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from sfumato.core import program_cache

MARK = np.random.default_rng(77)
ROW = MARK.normal(size=32).astype(np.float32)
"""Of one example, of which no four numbers in a row occur elsewhere."""
IMAGE = MARK.integers(1, 255, size=(12, 12, 1)).astype(np.uint8)

RUN = """
import json, sys
from sfumato.cli import main
if sys.argv[1] == "control":  # a program that closes over what it is given
    from sfumato.core import program_cache
    program_cache.arrange()
    import jax, numpy as np
    data = np.load(sys.argv[2])["x_train"]
    jax.jit(lambda x: x + data)(np.float32(1)).block_until_ready()
else:
    for command in json.loads(sys.argv[1]):
        main(command)
"""


def run(home: Path, *arguments: str) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMP")}
    env |= {"XDG_CACHE_HOME": str(home), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    subprocess.run(
        [sys.executable, "-c", RUN, *arguments], env=env, check=True, capture_output=True
    )


def programs(home: Path) -> list[Path]:
    return list((home / "sfumato/xla").rglob("*-cache"))


def unpacked(path: Path) -> bytes:
    """As JAX compresses: by zstandard where that is installed, else by zlib."""
    content = path.read_bytes()
    if not content.startswith(b"\x28\xb5\x2f\xfd"):
        return zlib.decompress(content)
    import zstandard

    return zstandard.ZstdDecompressor().decompress(content)


def holding(home: Path) -> list[str]:
    """The programs in which four neighboring numbers of the marked row or image occur."""
    wanted = []
    for array in (ROW, IMAGE.reshape(-1), IMAGE.reshape(-1) / np.float32(255)):
        step = 8 if array.dtype == np.uint8 else 4
        wanted += [array[k : k + step].tobytes() for k in range(0, 16, step)]
    return [path.name for path in programs(home) if any(each in unpacked(path) for each in wanted)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place, stream = tmp_path_factory.mktemp("data"), np.random.default_rng(1)
    labels = np.arange(48) % 3
    rows = stream.normal(size=(48, 32)).astype(np.float32)
    images = stream.integers(256, size=(48, 12, 12, 1)).astype(np.uint8)
    rows[5], images[5] = ROW, IMAGE
    found = {"rows": place / "rows.npz", "images": place / "images.npz"}
    for name, x in (("rows", rows), ("images", images)):
        np.savez(found[name], x_train=x, y_train=labels, x_test=x[:6] // 2, y_test=labels[:6])
    return found


def fit(method: str) -> tuple[object, ...]:
    steps = () if method in ("ls", "means") else ("--steps", 2)
    return ("fit", "--features", "rows", "--method", method, *steps)


CNN = (
    "train",
    "--data",
    "images",
    "--method",
    "dp-sgd",
    "--model",
    "cnn",
    "--steps",
    2,
    "--views",
    2,
)
COMMANDS: dict[str, tuple[object, ...]] = {
    "sgd": (*fit("sgd"), "--batch", 48),
    "network": (*CNN, "--batch", 48),
    **{name: fit(name) for name in ("ls", "fc", "newton")},
    "dp-fc": ("train", "--data", "images", "--method", "dp-fc", "--model", "scattering"),
}
TOGETHER = {"steps": ("sgd", "network"), "solvers": ("ls", "fc", "newton", "dp-fc")}
"""What one process runs: each begins with no program at all."""


def check_modes(home: Path) -> None:
    assert programs(home)
    assert all(each.parent.stat().st_mode & 0o077 == 0 for each in programs(home))


@pytest.mark.slow
@pytest.mark.parametrize("together", TOGETHER)
def test_no_number_of_a_private_example_is_in_a_program(
    together: str, data: dict[str, Path], tmp_path: Path
) -> None:
    rest = ("--epsilon", 8, "--log", "quiet", "--out")
    commands = [
        [str(data.get(str(word), word)) for word in (*COMMANDS[name], *rest, tmp_path / name)]
        for name in TOGETHER[together]
    ]
    run(tmp_path / "home", json.dumps(commands))
    check_modes(tmp_path / "home")
    assert not holding(tmp_path / "home")


@pytest.mark.slow
def test_control_a_number_that_a_program_closes_over_is_found(
    data: dict[str, Path], tmp_path: Path
) -> None:
    run(tmp_path / "home", "control", str(data["rows"]))
    check_modes(tmp_path / "home")
    assert holding(tmp_path / "home")


def arranged(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **variables: str) -> str | None:
    for name in (program_cache.DIRECTORY_VARIABLE, program_cache.OFF_VARIABLE):
        monkeypatch.setenv(name, "")  # so that what is set below is undone
        monkeypatch.delenv(name)
    for name, value in {"XDG_CACHE_HOME": str(tmp_path), **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delitem(sys.modules, "jax")
    program_cache.arrange()
    return os.environ.get(program_cache.DIRECTORY_VARIABLE)


def test_it_is_the_users_and_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "sfumato/xla/of another processor/a-cache"
    old.parent.mkdir(parents=True)
    old.write_bytes(bytes(1000))
    monkeypatch.setattr(program_cache, "MOST_BYTES", 900)
    found = arranged(monkeypatch, tmp_path)
    assert found is not None and Path(found).parent == tmp_path / "sfumato/xla"
    assert not old.exists()


@pytest.mark.parametrize(
    "variables", [{"SFUMATO_NO_CACHE": "1"}, {"JAX_COMPILATION_CACHE_DIR": "/theirs"}]
)
def test_it_is_off_where_somebody_said_so(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert arranged(monkeypatch, tmp_path, **variables) == variables.get(
        "JAX_COMPILATION_CACHE_DIR"
    )
    assert not (tmp_path / "sfumato").exists()


def test_a_home_that_cannot_be_written_has_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "sfumato").write_text("in the way")
    assert arranged(monkeypatch, tmp_path) is None
