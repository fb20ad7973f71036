"""`sfumato export --to card --push NAME`, to a hub on this computer that speaks the hub's own HTTP."""

import base64
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from run_helpers import sfumato, succeeds

import sfumato as sf

hub = pytest.importorskip("huggingface_hub")


class Hub(BaseHTTPRequestHandler):
    """Takes a repository and a commit, as the hub's API does; files come in the commit's own lines."""

    made: dict[str, Any]
    files: dict[str, bytes]
    open_: bool

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.open_:
            self.answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif self.path == "/api/repos/create":
            self.made |= json.loads(body)
            self.answer(200, {"url": f"{self.host}/clinic/{self.made['name']}", "id": "clinic/x"})
        elif self.path.endswith("/preupload/main"):
            named = json.loads(body)["files"]
            self.answer(
                200,
                {
                    "files": [
                        {**each, "uploadMode": "regular", "shouldIgnore": False} for each in named
                    ]
                },
            )
        elif self.path.endswith("/commit/main"):
            for line in body.splitlines():
                told = json.loads(line)
                if told["key"] == "file":
                    self.files[told["value"]["path"]] = base64.b64decode(told["value"]["content"])
            where = f"{self.host}/clinic/xray/commit/0"
            self.answer(200, {"success": True, "commitOid": "0", "commitUrl": where})
        else:
            self.answer(404, {"error": self.path})

    def do_GET(self) -> None:
        self.answer(404, {"error": self.path})

    do_HEAD = do_GET

    @property
    def host(self) -> str:
        return f"http://{self.headers['Host']}"

    def answer(self, code: int, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Hub]]:
    kind = type("Own", (Hub,), {"made": {}, "files": {}, "open_": True})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    place = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", place)
    monkeypatch.setattr("huggingface_hub.hf_api.ENDPOINT", place, raising=False)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield kind
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_pushed_is_private_and_loads_as_the_model(
    served: type[Hub], finished: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "card"
    shutil.copytree(finished, run)
    said = succeeds("export", run, "--to", "card", "--push", "clinic/xray", "--out", out)
    assert "clinic/xray (private" in said
    kept = served.made.get("visibility") == "private" or served.made.get("private") is True
    assert served.made["name"] == "xray" and kept  # the client's second version says it otherwise
    assert served.files == {path.name: path.read_bytes() for path in out.iterdir()}
    fetched = tmp_path / "fetched"
    fetched.mkdir()
    for name, content in served.files.items():
        (fetched / name).write_bytes(content)
    assert sf.load(fetched).classes_.tolist() == sf.load(run).classes_.tolist()
    assert "secret" not in "".join(served.files) and "ledger.jsonl" not in served.files


def test_a_hub_that_refuses_is_one_line(served: type[Hub], finished: Path, tmp_path: Path) -> None:
    served.open_ = False
    shutil.copytree(finished, tmp_path / "run")
    outcome = sfumato("export", tmp_path / "run", "--to", "card", "--push", "clinic/xray")
    assert outcome.code == 2 and outcome.err.count("\n") == 1
    assert "push='clinic/xray'" in outcome.err and "hf auth login" in outcome.err
    assert not served.files
