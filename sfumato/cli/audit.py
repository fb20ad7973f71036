"""`sfumato audit`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from sfumato.cli.trust import Trust
from sfumato.plan.config import Log


@dataclass(frozen=True)
class Audit:
    """Attack a finished run's trainer: a lower bound on epsilon beside the one claimed, in
    audit.json. Most attacks use the private images, which no epsilon covers: the report leaves out
    what these find."""

    run: tyro.conf.Positional[Path]
    """The run's directory."""
    attack: Literal["whitebox", "one-run", "blackbox", "lira"] = "whitebox"
    """whitebox: every release is seen, against known gradients | one-run: images with wrong labels,
    one training | blackbox: many small models, the final one is seen | lira: membership inference
    on the run's own model."""
    size: int | None = None
    """Canaries, images, models or shadow models [a few minutes' worth for a small run]."""
    images: int = 0
    """whitebox: so many of the run's training images train along with the canaries."""
    seed: int | None = None
    """Fixes the attack's coins and its trainings' noise [the operating system's entropy]."""
    log: Log = "bar"
    trust: Trust = ()

    def __call__(self) -> None:
        from sfumato.runs import auditing

        found = auditing.audit(self.run, self.attack, self.size, self.images, self.seed, self.log)
        if self.log == "json":
            told = {"event": "audit", "run": str(self.run), "results": auditing.as_json(found)}
            print(json.dumps(told))
            return
        print(auditing.summary(found))
        print(f"report    {self.run / 'report.html'}")
        if found.unpaid:
            print(
                f"kept back {', '.join(found.unpaid)}: of private images and not paid for, so in {self.run / 'audit.json'} "
                "alone (`sfumato report --with-audit` shows it)"
            )
