"""What the site needs beside mkdocs.yml: some files of the repository become pages, too, and links from one
page to another hold in the repository as on the site.

A link to a file that is no page (a source file, the license) becomes its name.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHOWN = {
    "benchmarks/RESULTS.md": "project/measured.md",
    "CHANGELOG.md": "project/changes.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CODE_OF_CONDUCT.md": "project/conduct.md",
} | {
    str(path.relative_to(ROOT)): f"examples/{path.stem}.md"
    for path in sorted((ROOT / "examples").rglob("*"))
    if path.suffix in (".py", ".ipynb")
}
"""File of the repository -> page of the site."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    from mkdocs.structure.files import File, InclusionLevel

    for path, page in SHOWN.items():
        made = File.generated(config, page, content=shown(ROOT / path))
        made.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(made)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    source = next(
        (path for path, made in SHOWN.items() if made == page.file.src_uri),
        f"docs/{page.file.src_uri}",
    )
    return relinked(markdown, source, page.file.src_uri)


def relinked(markdown: str, source: str, page: str) -> str:
    """Links of a file of the repository as those of a page."""

    def target(match: re.Match[str]) -> str:
        picture, words, link = match.groups()
        path, hash_, anchor = link.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return match.group()
        found = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        made = SHOWN.get(found) or (
            found.removeprefix("docs/") if found.startswith("docs/") else ""
        )
        if not made:
            return words
        relative = posixpath.relpath(made, posixpath.dirname(page) or ".")
        return f"{picture}[{words}]({relative}{hash_}{anchor})"

    return LINK.sub(target, markdown)


def shown(path: Path) -> str:
    """A file as Markdown: a script is its docstring and its code, a notebook its cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    if path.suffix == ".py":
        return f"# {path.name}\n\n```python\n{text}```\n"
    cells = []
    for cell in json.loads(text)["cells"]:
        content = "".join(cell["source"])
        cells.append(content if cell["cell_type"] == "markdown" else f"```python\n{content}\n```")
    return "\n\n".join(cells) + "\n"
