"""Run the mutation campaign and write its table into docs/attacks.md: `make attacks`. With
`--missing` only bugs that have no row there, or another catcher or place than their row says."""

import re
import sys
from pathlib import Path

from mutations import MUTATIONS, Campaign, Mutation

PAGE = Path(__file__).parents[1] / "docs" / "attacks.md"
BEGIN, END = "<!-- planted bugs: written by tests/attacks.py -->", "<!-- end -->"


def facts(mutation: Mutation) -> str:
    """A row of the table without its last cell: what was planted where, and what must catch it."""
    file, _, test = mutation.caught_by.partition("::")
    where = ", ".join(dict.fromkeys(edit.where.replace(":", ".") for edit in mutation.edits))
    return f"| {mutation.name} | `{where}` | `{file}` `{test}` |"


def measured(campaign: Campaign, mutation: Mutation, passes: dict[str, bool]) -> str:
    """The last cell: seconds until the bug was caught. passes: tests -> whether they do without a
    bug."""
    found = campaign.ask(mutation.name)
    if mutation.caught_by not in passes:
        control = campaign.ask(f"control {mutation.caught_by}")
        passes[mutation.caught_by] = bool(control["passed"]) and not control["failed"]
    caught = found["failed"] and re.search(mutation.says, found["says"])
    return (
        format(found["seconds"], ".1f") if caught and passes[mutation.caught_by] else "NOT CAUGHT"
    )


def table(known: dict[str, str]) -> tuple[str, int]:
    """known: rows that need not be measured again, by their facts."""
    rows: list[str] = []
    passes: dict[str, bool] = {}
    with Campaign() as campaign:
        for mutation in MUTATIONS:
            told = facts(mutation)
            if told in known:
                rows.append(known[told])
                continue
            rows.append(f"{told} {measured(campaign, mutation, passes)} |")
            print(rows[-1], flush=True)
    survived = sum("NOT CAUGHT" in row for row in rows)
    head = [
        f"{len(MUTATIONS)} bugs, {len(MUTATIONS) - survived} caught.\n",
        "| bug | planted in | caught by | seconds |",
        "|---|---|---|---|",
    ]
    return "\n".join(head + rows), survived


def main() -> None:
    before, rest = PAGE.read_text().split(BEGIN)
    now, after = rest.split(END, 1)
    caught = [row for row in now.splitlines() if re.search(r"\| [\d.]+ \|$", row)]
    rows = {row[: row[:-1].rindex("|") + 1]: row for row in caught}
    written, survived = table(rows if sys.argv[1:] == ["--missing"] else {})
    PAGE.write_text(f"{before}{BEGIN}\n{written}\n{END}{after}")
    sys.exit(survived)


if __name__ == "__main__":
    main()
