"""A folder as a data set of the Hugging Face hub, on this computer: what `huggingface_hub` and `datasets`
ask of the hub to fetch one, over HTTP, and nothing else.

    python tests/hub_server.py FOLDER      prints the port, then a line for each request
"""

import hashlib
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

NAME, COMMIT = "owner/birds", "0" * 39 + "1"


class Hub(BaseHTTPRequestHandler):
    """root: the folder of the one data set that there is."""

    root: Path

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        head, _, rest = path.partition(f"/datasets/{NAME}")
        if path == head:
            return self._missing("RepoNotFound")
        kind, _, rest = rest.removeprefix("/").partition("/")
        _, _, inner = rest.partition("/")  # after the revision
        if head == "" and kind == "resolve":
            return self._file(inner)
        if head == "/api" and kind in ("", "revision"):
            return self._json({"id": NAME, "sha": COMMIT, "siblings": []})
        if head == "/api" and kind == "tree":
            found = self._entries(inner)
            return self._json(found) if found else self._missing("EntryNotFound")
        return self._missing("EntryNotFound")

    do_HEAD = do_GET

    def _entries(self, inner: str) -> list[dict[str, Any]]:
        """What lies in a folder."""
        found = []
        for path in sorted((self.root / inner).glob("*")):
            kind = "directory" if path.is_dir() else "file"
            size = 0 if path.is_dir() else path.stat().st_size
            place = path.relative_to(self.root).as_posix()
            found.append({"type": kind, "path": place, "oid": "0" * 40, "size": size})
        return found

    def _file(self, inner: str) -> None:
        path = self.root / inner
        if not path.is_file():
            return self._missing("EntryNotFound")
        content = path.read_bytes()
        self._answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"')

    def _json(self, value: Any) -> None:
        self._answer(200, json.dumps(value).encode(), **{"Content-Type": "application/json"})

    def _missing(self, why: str) -> None:
        self._answer(404, b"{}", **{"X-Error-Code": why, "X-Error-Message": why})

    def _answer(self, code: int, content: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        print(self.command, self.path, arguments[1:2], flush=True)


def main() -> None:
    Hub.root = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
