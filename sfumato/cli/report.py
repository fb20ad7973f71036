"""`sfumato report`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from sfumato.cli.trust import Trust


@dataclass(frozen=True)
class Report:
    """Write a finished run's report.html again, and print its privacy statement."""

    run: tyro.conf.Positional[Path]
    """The run's directory."""
    with_audit: bool = False
    """Also show what `sfumato audit` measured on the private images. No epsilon covers it: such a
    report is for you alone."""
    curve: Path | None = None
    """Also draw the learning curve, as a PNG file of this name."""
    trust: Trust = ()

    def __call__(self) -> None:
        from sfumato.core.errors import RunError
        from sfumato.core.files import write_atomic
        from sfumato.report import RunFacts, as_text, privacy_statement, write_report
        from sfumato.report.curve import course
        from sfumato.runs.directory import RunDirectory

        if not RunDirectory.open(self.run).complete:
            raise RunError(
                f"{self.run}: the run is not complete; `sfumato resume {self.run}` finishes it"
            )
        written = write_report(self.run, self.with_audit)
        print(as_text(privacy_statement(RunFacts.load(self.run, self.with_audit))))
        print(f"\nreport: {written}")
        if self.curve is not None:
            write_atomic(self.curve, course(RunFacts.load(self.run)))
            print(f"curve:  {self.curve}")
