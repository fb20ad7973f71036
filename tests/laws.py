"""The list of laws in docs/checks.md: what each file of tests promises, in the words of its first
paragraph, and by how many tests. `python tests/laws.py` writes it."""

import ast
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "checks.md"
BEGIN, END = "<!-- laws: written by tests/laws.py -->", "<!-- end -->"


def row(path: Path) -> str:
    tree = ast.parse(path.read_text())
    promise = " ".join((ast.get_docstring(tree) or "").split("\n\n")[0].split())
    assert promise, f"{path.name} does not say what it promises: write a docstring"
    tests = sum(
        isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in tree.body
    )
    return f"| {tests} | `{path.name}` | {promise} |"


def table() -> str:
    rows = [row(path) for path in sorted(HERE.glob("test_*.py"))]
    return "\n".join(["| tests | file | what it promises |", "|---|---|---|", *rows])


def written(page: str) -> str:
    """What stands in the page between the marks."""
    return page.split(BEGIN)[1].split(END)[0].strip("\n")


def main() -> None:
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
