"""`sfumato serve` over real HTTP: answers, limits, hostile requests."""

import http.client
import io
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import CLASSES, refused

import sfumato as sf
from sfumato.serving.service import app

uvicorn = pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def port(finished: Path) -> Iterator[int]:
    """A service in this process, on a port that is free."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    made = app(finished, max_bytes=20_000, max_pixels=10_000)
    server = uvicorn.Server(uvicorn.Config(made, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join()
    listening.close()


def ask(
    port: int, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    return response.status, response.read(), {k.lower(): v for k, v in response.getheaders()}


def png(size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    stream = np.random.default_rng(0)
    buffer = io.BytesIO()
    pixels = stream.integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_an_image_is_answered_as_the_model_answers_it(
    port: int, finished: Path, tmp_path: Path
) -> None:
    for content in (png(), png((31, 20), "JPEG"), png((9, 9), "WEBP")):
        code, body, _ = ask(port, "POST", "/predict", content)
        assert code == 200, body
        found, own = json.loads(body), sf.load(finished)
        (tmp_path / "image").write_bytes(content)
        expected = own.predict_proba(tmp_path / "image")[0]
        assert list(found["probabilities"]) == list(CLASSES)
        np.testing.assert_allclose(list(found["probabilities"].values()), expected, atol=1e-5)
        assert found["class"] == CLASSES[int(expected.argmax())]


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", 400, "not a readable image"),
        (b"hello", 400, "not a readable image"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, 400, "not a readable image"),
        (png()[:90], 400, "not a readable image"),
        (b"/etc/passwd", 400, "not a readable image"),
        (b"x" * 30_000, 413, "20,000 bytes"),
        (png((101, 100), "JPEG"), 400, "10,000"),
    ],
    ids=["empty", "text", "header only", "cut off", "a path", "too long", "too many pixels"],
)
def test_hostile_bytes_are_refused_in_one_line(
    port: int, content: bytes, code: int, says: str
) -> None:
    found, body, _ = ask(port, "POST", "/predict", content)
    why = json.loads(body)["error"]
    assert found == code and says in why and "\n" not in why
    assert "Traceback" not in why and "BytesIO" not in why


def test_only_its_own_page_and_name_are_answered(port: int) -> None:
    own = f"127.0.0.1:{port}"
    assert ask(port, "POST", "/predict", png(), Origin=f"http://{own}", Host=own)[0] == 200
    assert ask(port, "POST", "/predict", png(), Origin="http://elsewhere.example")[0] == 403
    assert ask(port, "GET", "/", Host="elsewhere.example")[0] == 400  # a name that was rebound
    for path in ("/model.safetensors", "/../model.json", "/%2e%2e/secret.key", "/page.py"):
        assert ask(port, "GET", path)[0] == 404, path
    assert ask(port, "GET", "/predict")[0] == 405


def test_the_page_is_whole_and_may_load_nothing_else(port: int) -> None:
    code, page, headers = ask(port, "GET", "/")
    assert code == 200 and b"<title>Sfumato</title>" in page and b"http" not in page
    assert "default-src 'none'" in headers["content-security-policy"]
    for path in ("/page.js", "/page.css"):
        assert ask(port, "GET", path)[0] == 200
    told = json.loads(ask(port, "GET", "/privacy")[1])
    assert told["spent"] > 0 and told["unit"] == "image" and told["classes"] == list(CLASSES)


def test_what_cannot_be_served_is_refused(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    refused(tmp_path, "serve", tmp_path / "run", says=("not complete", "resume"))
    refused(tmp_path, "serve", tmp_path / "nowhere", says=("nowhere",))
    refused(tmp_path, "serve", finished, "--port", 70000, says=("port=70000",))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(tmp_path, "serve", finished, "--port", port, says=(f"port={port}", "or 0"))
