"""The hub, played by a server on this machine: download, cache, no network, no such repository, a
spoiled cache."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

pytest.importorskip("huggingface_hub")

from huggingface_hub import constants

from sfumato.core.errors import WeightsError
from sfumato.networks import catalog
from sfumato.networks.image_cost import outline
from sfumato.networks.input import Input, Prepared
from sfumato.weights import load, pretrained, save
from sfumato.weights.hub import is_repository

COMMIT = "0123456789abcdef0123456789abcdef01234567"
MODEL = "wrn-10-1"


class Hub(BaseHTTPRequestHandler):
    """What the real one answers to questions for a file of a repository."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        owner, name, resolve, revision, file = (
            *self.path.strip("/").split("/", 4),
            "",
            "",
            "",
            "",
            "",
        )[:5]
        problem = (
            "RepoNotFound"
            if (owner, name, resolve) != ("timm", "tiny", "resolve")
            else "RevisionNotFound"
            if revision not in ("main", COMMIT)
            else "EntryNotFound"
            if file not in self.files
            else None
        )
        content = b"" if problem else self.files[file]
        self.send_response(404 if problem else 200)
        if problem:
            self.send_header("X-Error-Code", problem)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    network = jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape), outline(catalog.find(MODEL), (8, 8, 3), 4)
    )
    save(tmp_path / "a.safetensors", Prepared(network, Input(8, colors=3)), MODEL)
    files = {
        "model.safetensors": (tmp_path / "a.safetensors").read_bytes(),
        "config.json": json.dumps({}).encode(),
    }
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Hub,), {"files": files}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def refused(name: str, cache: Path) -> str:
    with pytest.raises(WeightsError) as error:
        load(name, cache_dir=cache)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    return str(error.value)


def test_download_then_cache(
    hub: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = load("timm/tiny", cache_dir=cache)
    assert first.architecture == MODEL and first.source == "timm/tiny"
    for name in ("hf-hub:timm/tiny", f"timm/tiny@{COMMIT}", f"timm/tiny@sha256:{first.sha256}"):
        assert load(name, cache_dir=cache).sha256 == first.sha256
    assert "not " + "0" * 64 in refused(f"timm/tiny@sha256:{'0' * 64}", cache)
    hub.shutdown()
    hub.server_close()
    waits: list[float] = []  # the client's own downloads would wait and ask again
    monkeypatch.setattr(time, "sleep", waits.append)
    again = pretrained("timm/tiny", classes=3, cache_dir=cache)
    assert again.network.head.bias.shape == (3,)
    assert load(f"timm/tiny@{COMMIT}", cache_dir=cache).sha256 == first.sha256
    said = refused("timm/tiny", tmp_path / "empty")
    assert "not in the hub's cache" in said and "path of a file" in said
    assert not waits


def test_a_spoiled_file_in_the_cache(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    load("timm/tiny", cache_dir=tmp_path)
    blob = next(tmp_path.glob("models--timm--tiny/snapshots/*/model.safetensors")).resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")
    assert f"not {blob.name}" in refused("timm/tiny", tmp_path)


@pytest.mark.parametrize("name", ["timm/nothing", "timm/tiny@nothing", "ti--mm/tiny"])
def test_no_such_repository(hub: ThreadingHTTPServer, tmp_path: Path, name: str) -> None:
    assert "no such repository or revision" in refused(name, tmp_path)


def test_a_repository_without_weights_and_one_with_a_state_dict(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    files = hub.RequestHandlerClass.files  # type: ignore[attr-defined]
    content = files.pop("model.safetensors")
    assert "neither model.safetensors nor pytorch_model.bin" in refused("timm/tiny", tmp_path)
    files["pytorch_model.bin"] = content
    assert "pytorch_model.bin: refused: no PyTorch file" in refused("timm/tiny", tmp_path)


@pytest.mark.parametrize(
    "name, right",
    [
        ("timm/vit_base_patch16_224.augreg_in21k", True),
        ("google/vit-base-patch16-224", True),
        ("a/b@main", True),
        ("a/b/c", False),
        ("/a/b", False),
        ("./a", False),
        ("a", False),
        ("~/a", False),
        ("a b/c", False),
    ],
)
def test_names_of_repositories(name: str, right: bool) -> None:
    assert is_repository(name) == right
