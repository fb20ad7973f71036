"""`sfumato serve`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from sfumato.cli.trust import Trust


@dataclass(frozen=True)
class Serve:
    """A page and a JSON endpoint for a finished run's model, on this computer (needs
    sfumato[serve])."""

    run: tyro.conf.Positional[Path]
    """The run's directory, or a copy of its model.json and model.safetensors."""
    port: int = 8000
    """0: any that is free."""
    host: str = "127.0.0.1"
    """Where to listen; another than this computer's own is not protected by any password."""
    max_bytes: int = 20 * 2**20
    """Largest upload."""
    max_pixels: int = 50_000_000
    """Largest image that is decoded, width times height."""
    trust: Trust = ()

    def __call__(self) -> None:
        from sfumato.serving.service import serve

        serve(self.run, self.host, self.port, self.max_bytes, self.max_pixels)
