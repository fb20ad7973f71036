"""A module imports only from rooms above its own in the table of docs/design.md."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "design.md").read_text()
ROOMS = [
    name
    for row in re.findall(r"^\|([^|]+)\|", TABLE, re.M)
    for name in re.findall(r"`(\w+)[./]", row)
]


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported(path: Path) -> set[str]:
    """Rooms that a file imports from, wherever in the file, also as `from sfumato import room`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {
                room(each.name) for each in node.names if each.name.split(".")[0] == "sfumato"
            }
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            if node.module == "sfumato":
                found |= {each.name for each in node.names if each.name in ROOMS}
            elif node.module and node.module.startswith("sfumato."):
                found.add(room(node.module))
    return found - {""}


def test_modules_import_only_from_rooms_above_theirs() -> None:
    wrong = []
    for path in sorted((ROOT / "sfumato").rglob("*.py")):
        own = path.relative_to(ROOT / "sfumato").parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        above = ROOMS[: ROOMS.index(own) + 1]  # a room that is not in the table fails here
        wrong += [
            f"{path.relative_to(ROOT)} ({own}) imports from {name}"
            for name in imported(path) - set(above)
        ]
    assert not wrong, "\n".join(wrong)


def test_the_table_names_every_room_and_no_other() -> None:
    assert len(ROOMS) > 10 and ROOMS[-1] == "cli" and len(set(ROOMS)) == len(ROOMS)
    found = {
        path.stem
        for path in (ROOT / "sfumato").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert found - {"__init__"} <= set(ROOMS)


def modules_imported(path: Path) -> set[str]:
    """The modules of the package that a file needs in order to be imported: not what its functions
    import later, nor what only type checkers read."""
    found: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        waiting += ast.iter_child_nodes(node)
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    """A room is read from its leaves up, like the house."""
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for path in (ROOT / "sfumato").rglob("*.py")
        if path.name != "__init__.py"
    }
    needs = {name: modules_imported(path) & set(paths) - {name} for name, path in paths.items()}
    while free := {name for name, others in needs.items() if not others}:
        needs = {name: others - free for name, others in needs.items() if name not in free}
    assert not needs, f"these import each other: {', '.join(sorted(needs))}"


def without(modules: str, code: str) -> None:
    """Run some code and see that these modules were not imported."""
    code += (
        f"; import sys; heavy = {{*{modules.split()}}} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_what_a_user_may_ask_is_known_without_jax_or_numpy() -> None:
    without("jax equinox optax numpy scipy PIL", "import sfumato.plan.config, sfumato.plan.recipes")


def test_a_report_reads_the_plan_itself_and_needs_no_jax() -> None:
    sources = {path.name: path.read_text() for path in (ROOT / "sfumato" / "report").glob("*.py")}
    assert "from sfumato.plan.plan import Plan" in sources["facts.py"]
    assert not [name for name, text in sources.items() if "class Plan" in text]
    run = ROOT / "tests" / "old_runs" / "ls"
    code = f"from sfumato.report import *; print(as_text(privacy_statement(RunFacts.load({str(run)!r}))))"
    without("jax equinox optax", code)
