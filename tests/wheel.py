"""`make release`: what stands in dist/ is tried as a stranger would: the wheel in an empty environment, the demo,
and a part of the tests against the installed package, with no source beside it.

    python tests/wheel.py dist
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOM = ROOT / "build" / "release"
SMOKE = ("test_light_commands.py", "test_loading.py", "test_estimator_files.py")
"""Fast tests that read no source file."""
TOOLS = ("pytest", "pytest-timeout", "hypothesis", "beartype")


def only(pattern: str, folder: Path) -> Path:
    (found,) = folder.glob(pattern)
    return found


def check_contents(wheel: Path, sdist: Path) -> None:
    """Both hold every file of the package that git has, and are called by its version."""
    listed = subprocess.run(
        ["git", "ls-files", "sfumato"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    expected = set(listed.stdout.split())
    version = re.search(
        r'__version__ = "(.+)"', (ROOT / "sfumato" / "__init__.py").read_text()
    ).group(1)
    inside = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    for name, held in ((wheel.name, inside), (sdist.name, packed)):
        assert f"-{version}" in name, f"{name}: the version is {version}"
        assert not (missing := sorted(expected - held)), f"{name}: lacks {missing}"


def run(*command: object, cwd: Path) -> str:
    """Without anything of this environment in the way. Prints what failed."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(each) for each in command],
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def main(dist: Path) -> None:
    wheel, sdist = only("*.whl", dist), only("*.tar.gz", dist)
    check_contents(wheel, sdist)
    shutil.rmtree(ROOM / "empty", ignore_errors=True)
    venv.create(ROOM / "empty", with_pip=True)
    bin_, elsewhere = ROOM / "empty" / "bin", ROOM / "elsewhere"
    shutil.rmtree(elsewhere, ignore_errors=True)
    elsewhere.mkdir(parents=True)
    run(bin_ / "pip", "install", "--quiet", wheel, cwd=elsewhere)
    print(run(bin_ / "sfumato", "--version", cwd=elsewhere).strip())
    demo = ("train", "--data", "digits", "--epsilon", "8", "--out", "demo", "--log", "quiet")
    print(run(bin_ / "sfumato", *demo, cwd=elsewhere).strip())
    assert (elsewhere / "demo" / "report.html").exists()
    run(bin_ / "pip", "install", "--quiet", *TOOLS, cwd=elsewhere)
    shutil.copytree(ROOT / "tests", elsewhere / "tests")
    shutil.copy(ROOT / "pyproject.toml", elsewhere)
    place = run(bin_ / "python", "-c", "import sfumato; print(sfumato.__file__)", cwd=elsewhere)
    assert str(ROOM / "empty") in place, f"not the wheel: {place}"
    tests = [f"tests/{name}" for name in SMOKE]
    said = run(bin_ / "pytest", "-p", "no:cacheprovider", "-m", "not slow", *tests, cwd=elsewhere)
    print(said.strip().splitlines()[-1])


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
