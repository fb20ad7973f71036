"""The checks themselves: tests of randomness say how often they fail by chance, the cache of
programs stays within bounds."""

import ast
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import chance
import laws
import programs
import pytest

HERE = Path(__file__).parent
STATED = re.compile(r"False\s+alarms:\s+([\d.e-]+)")


# -- chance


def names_in(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)} | {
        each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)
    }


class File:
    """A file of tests: its functions, and what it takes from other files of tests."""

    def __init__(self, path: Path) -> None:
        body = ast.parse(path.read_text()).body
        self.functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef)}
        self.imports = {
            alias.asname or alias.name: (str(node.module), alias.name)
            for node in body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def uses(self, node: ast.AST, file: str) -> set[tuple[str, str]]:
        """(file, name) of everything that a function of this file mentions."""
        return {self.imports.get(name, (file, name)) for name in names_in(node)}


@cache
def by_chance() -> dict[str, float | None]:
    """`file::test` of every test that draws a conclusion from random numbers, itself or in a
    function that it calls -> the rate of false alarms that its docstring states.
    """
    files = {
        path.stem: File(path)
        for path in sorted(HERE.glob("*.py"))
        if path.stem not in ("chance", "test_checks")
    }
    uses = {
        (stem, name): file.uses(node, stem)
        for stem, file in files.items()
        for name, node in file.functions.items()
    }
    random = {("chance", name) for name in vars(chance)}
    while more := {each for each, used in uses.items() if used & random} - random:
        random |= more
    found = {}
    for stem, name in uses:
        stated = STATED.search(ast.get_docstring(files[stem].functions[name]) or "")
        if name.startswith("test_") and (stated or (stem, name) in random):
            found[f"{stem}.py::{name}"] = float(stated[1].rstrip(".")) if stated else None
    return found


AUDITS = re.compile(r"\.broken|EXCEEDS|lower_bound")
BY_NAME = "noise_by_name"


@cache
def audits() -> dict[str, bool]:
    """`file::test` of every test that rests on what an audit of a trainer found -> whether that is
    the same on every machine: whether it takes noise by name."""
    found = {}
    for path in sorted(HERE.glob("test_*.py")):
        if path.stem in ("test_checks", "test_audit_bounds"):  # the latter's scores are made up
            continue
        text = path.read_text()
        of_module = any(
            BY_NAME in line for line in text.splitlines() if line.startswith("pytestmark")
        )
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                whole = ast.unparse(node)
                if AUDITS.search(whole) and f"{path.name}::{node.name}" not in by_chance():
                    found[f"{path.name}::{node.name}"] = of_module or BY_NAME in whole
    return found


def test_what_an_audit_has_seen_once_it_sees_on_every_machine() -> None:
    """An audit at 95 % accuses one trainer of twenty that are right: with other seeds, that is."""
    assert len(audits()) > 15 and not [test for test, fixed in audits().items() if not fixed]


def test_every_test_of_randomness_states_its_false_alarms() -> None:
    assert not [test for test, rate in by_chance().items() if rate is None]


def test_a_run_of_all_tests_fails_by_chance_once_in_a_million_at_most() -> None:
    rates = by_chance()
    assert len(rates) > 30 and sum(rate or 0 for rate in rates.values()) <= chance.IN_ALL


ACCURACY = re.compile(r"accuracy|score\(|recall\[")
MARGIN = re.compile(r"Margin:\s+(no noise|\d+)")


def wants_accuracy(node: ast.AST) -> bool:
    """Whether a model must be better than something."""
    return any(
        isinstance(each, ast.Compare)
        and isinstance(each.ops[0], ast.Gt | ast.GtE)
        and ACCURACY.search(ast.unparse(each.left))
        for each in ast.walk(node)
    )


@cache
def accuracies() -> dict[str, str | None]:
    """`file::test` of every test that wants an accuracy -> by how many standard deviations of fresh
    noise the accuracy is above what is wanted, as its docstring states, or "no noise"."""
    found = {}
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and wants_accuracy(node):
                stated = MARGIN.search(ast.get_docstring(node) or "")
                found[f"{path.name}::{node.name}"] = stated[1] if stated else None
    return found


def test_what_noise_does_to_an_accuracy_is_six_deviations_away_at_least() -> None:
    found = accuracies()
    assert len(found) > 7 and not [test for test, margin in found.items() if margin is None]
    assert not [test for test, m in found.items() if m and m.isdigit() and int(m) < 6]


def test_the_table_of_tests_of_randomness_is_up_to_date() -> None:
    """docs/checks.md: also the audits, which see the same on every machine, and accuracies."""
    table = {f"| `{test}` | {rate:.0e} |" for test, rate in by_chance().items()}
    table |= {f"| `{test}` | audit |" for test in audits()}
    table |= {
        f"| `{test}` | accuracy: {margin if margin == 'no noise' else margin + ' deviations'} |"
        for test, margin in accuracies().items()
    }
    written = {
        line
        for line in (HERE.parent / "docs/checks.md").read_text().splitlines()
        if line.startswith("| `test_")
    }
    assert written == table


def test_the_list_of_laws_is_up_to_date() -> None:
    """A file or a test that is gone shows in docs/checks.md. `python tests/laws.py` writes the list."""
    assert laws.written(laws.PAGE.read_text()) == laws.table(), "run `python tests/laws.py`"


# -- the cache of programs


def program(path: Path, size: int, used: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (used, 1.0))
    return path


def test_what_was_not_used_for_longest_leaves_the_cache_first(tmp_path: Path) -> None:
    """Also if it was made last, and for whatever processor."""
    places = [
        program(tmp_path / kind / f"{k}-cache", 100, used)
        for k, (kind, used) in enumerate(
            [("old", 50.0), ("old", 20.0), ("new", 30.0), ("new", 40.0), ("new", 10.0)]
        )
    ]
    programs.prune(tmp_path, 300)
    assert [path.exists() for path in places] == [True, False, True, True, False]


def test_several_runs_bound_the_cache_at_once(tmp_path: Path) -> None:
    """None fails as another deletes what it has seen, and none deletes more than is needed."""
    for k in range(2000):
        program(tmp_path / str(k % 2) / f"{k}-cache", 10, float(k))
    code = f"import programs, pathlib; programs.prune(pathlib.Path({str(tmp_path)!r}), 10_000)"
    runs = [subprocess.Popen([sys.executable, "-c", code], cwd=HERE) for _ in range(4)]
    assert [run.wait() for run in runs] == [0] * 4
    left = {int(path.name.removesuffix("-cache")) for path in tmp_path.rglob("*-cache")}
    assert left == set(range(1000, 2000))


@pytest.mark.parametrize("mine", [True, False])
def test_a_run_leaves_its_own_cache_within_the_bound(tmp_path: Path, mine: bool) -> None:
    """A cache that the caller has chosen is the caller's."""
    code = (
        "import programs; programs.MOST_BYTES = 500; programs.arrange(); place = programs.home() / 'x-cache'; "
        "place.parent.mkdir(parents=True, exist_ok=True); place.write_bytes(bytes(900)); programs.settle()"
    )
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    env |= {"XDG_CACHE_HOME": str(tmp_path)} | (
        {} if mine else {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "theirs")}
    )
    subprocess.run([sys.executable, "-c", code], cwd=HERE, env=env, check=True)
    assert (tmp_path / "sfumato/xla-tests/x-cache").exists() == (not mine)
