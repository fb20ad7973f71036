"""Run the mutation campaign and write its table into docs/attacks.md: `make attacks`."""

import re
import sys
from pathlib import Path

from mutations import MUTATIONS, Campaign

PAGE = Path(__file__).parents[1] / "docs" / "attacks.md"
BEGIN, END = "<!-- planted bugs: written by tests/attacks.py -->", "<!-- end -->"


def table() -> tuple[str, int]:
    rows, survived = [], 0
    passes: dict[str, bool] = {}  # without a bug
    with Campaign() as campaign:
        for mutation in MUTATIONS:
            found = campaign.ask(mutation.name)
            caught = found["failed"] and re.search(mutation.says, found["says"])
            if mutation.caught_by not in passes:
                control = campaign.ask(f"control {mutation.caught_by}")
                passes[mutation.caught_by] = bool(control["passed"]) and not control["failed"]
            caught = caught and passes[mutation.caught_by]
            survived += not caught
            file, _, test = mutation.caught_by.partition("::")
            where = ", ".join(
                dict.fromkeys(edit.where.replace(":", ".") for edit in mutation.edits)
            )
            rows.append(
                f"| {mutation.name} | `{where}` | `{file}` `{test}` | "
                f"{format(found['seconds'], '.1f') if caught else 'NOT CAUGHT'} |"
            )
            print(rows[-1])
    head = [
        f"{len(MUTATIONS)} bugs, {len(MUTATIONS) - survived} caught.\n",
        "| bug | planted in | caught by | seconds |",
        "|---|---|---|---|",
    ]
    return "\n".join(head + rows), survived


def main() -> None:
    written, survived = table()
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{written}\n{END}{rest.split(END)[1]}")
    sys.exit(survived)


if __name__ == "__main__":
    main()
