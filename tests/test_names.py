"""One owner for each name: of a file, of a class; and what the documents name is there."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sfumato"
MODULES = sorted(PACKAGE.rglob("*.py"))
DOCUMENTS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "Makefile"]
WITH_DOCSTRINGS = MODULES + sorted((ROOT / "tests").glob("*.py"))

EVERYWHERE = {"__init__", "__main__", "base"}
BY_FAMILY = {"Block"}
"""Each family of networks has its own, which nobody imports."""


def repeated(found: dict[str, list[str]], allowed: set[str]) -> list[str]:
    return [
        f"{name}: {', '.join(places)}"
        for name, places in sorted(found.items())
        if len(places) > 1 and name not in allowed
    ]


def test_no_two_modules_have_one_name() -> None:
    found = defaultdict(list)
    for path in MODULES:
        found[path.stem].append(str(path.relative_to(ROOT)))
    assert not repeated(found, EVERYWHERE)


def test_no_two_public_classes_have_one_name() -> None:
    found = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    assert not repeated(found, BY_FAMILY)


OF_A_ROOM = {"engine.md": "clip"}
"""What is about one room names its files without it."""
OF_A_RUN = ("work/", "model_card.md")
"""Files that runs write."""


def named(text: str) -> set[str]:
    """Paths of files of this repository: with a folder anywhere, a name alone in backquotes."""
    paths = re.findall(r"(?<![\w/.:-])((?:[\w.-]+/)+[\w-]+\.(?:py|md|toml|json|html))\b", text)
    alone = re.findall(r"`([\w-]+\.(?:py|md))`", text)
    return {path for path in [*paths, *alone] if not path.startswith(OF_A_RUN)}


def exists(path: str, places: list[Path]) -> bool:
    return any((place / path).exists() for place in places)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_documents_name_are_there(document: Path) -> None:
    """A name alone may be that of a file in any room or in tests/."""
    rooms = [each.parent for each in DOCUMENTS + WITH_DOCSTRINGS]
    if document.name in OF_A_ROOM:
        rooms = [PACKAGE / OF_A_ROOM[document.name], ROOT / "tests"]
    places = [ROOT, PACKAGE, *rooms]
    assert not {each for each in named(document.read_text()) if not exists(each, places)}


def docstrings(path: Path) -> str:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return "\n".join(ast.get_docstring(node) or "" for node in nodes)


def test_files_that_docstrings_name_are_there() -> None:
    """A name alone is that of a file beside."""
    missing = [
        f"{path.relative_to(ROOT)}: {each}"
        for path in WITH_DOCSTRINGS
        for each in sorted(named(docstrings(path)))
        if not exists(each, [ROOT, PACKAGE, *path.parents])
    ]
    assert not missing, "\n".join(missing)
