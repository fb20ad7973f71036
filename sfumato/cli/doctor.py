"""`sfumato doctor`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Doctor:
    """Versions, devices, threads, memory and extras, for a bug report. Names no file and no user."""

    json: bool = False
    """Print one JSON object."""

    def __call__(self) -> None:
        from sfumato.runs.examination import examined

        found = examined()
        if self.json:
            import json

            print(json.dumps(found))
            return
        width = max(map(len, found))
        for name, value in found.items():
            print(f"{name:<{width}}  {value}")
