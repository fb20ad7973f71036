"""Blocks, links and headings of the documents, read as Markdown."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / f"{name}.md" for name in ("CHANGELOG", "CODE_OF_CONDUCT", "CONTRIBUTING", "SECURITY")),
    ROOT / "benchmarks" / "RESULTS.md",
]
RUN = "<!-- run -->"
"""Before a block of commands: a slow test runs it in full."""


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    kind: str
    text: str
    run: bool

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Fenced blocks, also indented ones of lists."""
    found, lines, at = [], page.read_text(encoding="utf-8").splitlines(), 0
    while at < len(lines):
        fence = re.fullmatch(r"(\s*)```(\w*)\s*", lines[at])
        if fence is None:
            at += 1
            continue
        end = next(k for k in range(at + 1, len(lines)) if lines[k].strip() == "```")
        indent = len(fence[1])
        text = "\n".join(line[indent:] for line in lines[at + 1 : end]) + "\n"
        found.append(Block(page, at + 2, fence[2], text, lines[at - 1].strip() == RUN))
        at = end + 1
    return found


def prose(page: Path) -> str:
    """A page without its blocks and without code in backquotes."""
    text = re.sub(r"^(\s*)```.*?^\s*```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """Of the headings, as Python-Markdown makes them (GitHub makes the same of plain words)."""
    text = re.sub(r"^(\s*)```.*?^\s*```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        plain = unicodedata.normalize("NFKD", heading.replace("`", "")).encode("ascii", "ignore")
        words = re.sub(r"[^\w\s-]", "", plain.decode()).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", words))
    return found
