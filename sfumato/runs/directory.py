"""A run directory: the names of its files, and which state a run is in.

    config.json  plan.json      what was asked, what was decided; fixed before the first release
    ledger.jsonl                every release, paid before it happened
    secret.key   work/          key and temporary files; gone when the run is complete
    metrics.jsonl               progress
    model.safetensors model.json   the released classifier (model-not-private.safetensors, where nothing is promised)
    evaluation.json result.json report.html model_card.md

What may stand in them is the table of `privacy/fields.py`; `write` and `append_metric` refuse all
else.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfumato.core import keys, typed_json
from sfumato.core.errors import RunError
from sfumato.core.files import (
    append_json,
    make_directory,
    parse_json,
    read_json,
    remove_directory,
    sync_directory,
    write_atomic,
    write_json,
)
from sfumato.core.keys import SecretKey
from sfumato.privacy import fields
from sfumato.privacy.guarantee import whole_unit
from sfumato.privacy.ledger import FILE_NAME as LEDGER
from sfumato.privacy.ledger import Ledger

_BEGAN = "began.json"


@dataclass(frozen=True)
class RunDirectory:
    """written: told of each line and file that others may read, once it is on the disk."""

    path: Path
    written: Callable[[str, Any], None] = lambda name, value: None

    @property
    def key_file(self) -> Path:
        return self.path / "secret.key"

    @property
    def work(self) -> Path:
        return self.path / "work"

    @property
    def checkpoint(self) -> Path:
        return self.work / "checkpoint"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def file(self, name: str) -> Path:
        return self.path / name

    @classmethod
    def create(
        cls,
        path: Path,
        key: SecretKey,
        config: dict[str, Any],
        plan: dict[str, Any],
        began: dict[str, Any],
    ) -> "RunDirectory":
        """Make the directory; it appears whole. began: what must be the same when the run is
        resumed.

        Raises RunError if something is there already.
        """
        refuse_existing(path)
        for name, value in {
            "config.json": config,
            "plan.json": plan,
            f"work/{_BEGAN}": began,
        }.items():
            fields.check(name, value, fields.is_selected(plan))
        aside = cls(path.with_name(f".{path.name}.{os.getpid()}.new"))
        try:
            make_directory(path.parent)
            remove_directory(aside.path)
            aside.path.mkdir(mode=0o700)
        except OSError as error:
            raise RunError(
                f"out={str(path)!r}: cannot be created ({error.strerror}); choose another --out"
            ) from None
        try:
            aside.work.mkdir()
            key.save(aside.key_file)
            write_json(aside.file("config.json"), config)
            write_json(aside.file("plan.json"), plan)
            write_json(aside.work / _BEGAN, began)
            Ledger.create(
                aside.path,
                delta=plan["delta"],
                epsilon_max=typed_json.or_infinite(plan["epsilon"]),
                relation=plan["relation"],
                context=aside.context(),
                unit=whole_unit(plan["unit"], plan.get("images_per_unit")),
            ).close()
            _rename_new(aside.path, path)
        except BaseException:
            remove_directory(aside.path)
            raise
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDirectory":
        """Raises RunError if this is not a run directory."""
        path = Path(path)
        if not (path / "config.json").exists() or not (path / "plan.json").exists():
            raise RunError(
                f"{path}: not a run directory (no config.json and plan.json); `sfumato train` makes one"
            )
        directory = cls(path)
        if directory.complete:
            directory.finish()  # it may have been killed while it tidied up
        return directory

    @property
    def complete(self) -> bool:
        """result.json is written last, so everything else is there."""
        return self.file("result.json").exists()

    def context(self) -> str:
        """A hash of what was asked and decided; the ledger's first line holds it, so a later change
        is noticed."""
        try:
            parts = [
                json.dumps(read_json(self.file(name)), sort_keys=True)
                for name in ("config.json", "plan.json")
            ]
        except ValueError as error:
            raise RunError(
                f"{self.path}: config.json or plan.json is damaged ({error}); restore it"
            ) from None
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def began(self) -> dict[str, Any]:
        """What `create` was told. Raises RunError if the file is missing or damaged."""
        try:
            found = read_json(self.work / _BEGAN)
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.work / _BEGAN}: missing or damaged ({error}); this run cannot be resumed"
            ) from None
        return found if isinstance(found, dict) else {}

    def finish(self) -> None:
        """Destroy the key, then let others look (without the key nothing here is secret), then
        remove what only the running run needed: the sign that this was done to its end. A second
        time nothing is touched.
        """
        if self.key_file.exists() or self.work.exists():
            keys.destroy(self.key_file)
            self.path.chmod(0o755)
            remove_directory(self.work)

    def discard(self) -> None:
        """Remove a run that has released nothing."""
        keys.destroy(self.key_file)
        remove_directory(self.path)

    def write(self, name: str, value: Any, mode: int = 0o644) -> None:
        """Write a JSON file. Raises RunError for a field that nobody declared."""
        value = typed_json.plain(value)
        fields.check(name, value, self._selected())
        write_json(self.file(name), value, mode)
        if mode & 0o004:
            self.written(name, value)

    def append_metric(self, record: dict[str, Any]) -> None:
        """As `write`, a line of metrics.jsonl."""
        record = typed_json.plain(record)
        fields.check(self.metrics.name, record, self._selected())
        append_json(self.metrics, record)
        self.written(self.metrics.name, record)

    def _selected(self) -> bool:
        return fields.is_selected(read_json(self.file("plan.json")))

    def level_times(self) -> None:
        """Date every file, and the directory, as the ledger, whose last line came before the work:
        to hide how long it took."""
        paid = self.file(LEDGER).stat().st_mtime_ns
        for each in (*self.path.iterdir(), self.path):
            os.utime(each, ns=(paid, paid))

    def drop_metrics_after(self, step: int) -> None:
        """Forget progress beyond the checkpoint that a run is resumed from, and a line torn by a
        crash."""
        kept = []
        for line in self.metrics.read_bytes().splitlines() if self.metrics.exists() else []:
            try:
                if parse_json(line)["step"] <= step:
                    kept.append(line + b"\n")
            except (ValueError, KeyError, TypeError):
                continue
        write_atomic(self.metrics, b"".join(kept))


def _rename_new(aside: Path, path: Path) -> None:
    """Show the directory under its name, for good. Raises RunError if another process was quicker."""
    try:
        aside.rename(path)
    except OSError as error:
        raise (_taken(path) if error.errno in (errno.EEXIST, errno.ENOTEMPTY) else error) from None
    sync_directory(path.parent)


def refuse_existing(path: Path) -> None:
    if os.path.lexists(path):  # also a link to nowhere, which nothing can be renamed over
        raise _taken(path)


def _taken(path: Path) -> RunError:
    return RunError(
        f"out={str(path)!r}: exists already; choose another --out, or `sfumato resume {path}`"
    )
