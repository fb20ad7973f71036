"""Downloads, against a server on this machine."""

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from data_helpers import cifar_files, tar_gz, write_idx

from sfumato import data
from sfumato.core.errors import DataError
from sfumato.data.download import fetch
from sfumato.data.published_sets import REGISTRY, RemoteFile


class Server(ThreadingHTTPServer):
    """Serves `content` by path; "/short..." is cut off after half, "/slow" never answers."""

    content: dict[str, bytes]
    asked: list[str]

    def handle_error(self, *_: object) -> None:
        """A client that hangs up early is part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        body = self.server.content.get(self.path)
        if self.path == "/slow":
            time.sleep(1.0)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path.startswith("/short") else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as it:
        it.content, it.asked = {}, []
        thread = threading.Thread(target=it.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield it
        it.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_DATA", str(tmp_path / "default"))
    for name in ("http_proxy", "HTTP_PROXY", "SFUMATO_MIRROR"):
        monkeypatch.delenv(name, raising=False)


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def remote(name: str, content: bytes) -> RemoteFile:
    return RemoteFile(name, hashlib.md5(content).hexdigest())


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_good_file_arrives_whole_and_reports_progress(tmp_path: Path, server: Server) -> None:
    content = bytes(range(256)) * 10_000
    server.content["/a.gz"] = content
    seen: list[tuple[str, int, int | None]] = []
    path = fetch(
        remote("a.gz", content),
        address(server) + "/",
        tmp_path / "new",
        lambda *at: seen.append(at),
    )
    assert path.read_bytes() == content and files_in(tmp_path) == ["a.gz"]
    assert seen[-1] == ("a.gz", len(content), len(content)) and len(seen) > 1


@pytest.mark.parametrize(
    ("name", "says"), [("a.gz", "has MD5"), ("short.gz", "has MD5"), ("missing.gz", "answered 404")]
)
def test_a_bad_answer_leaves_no_file(tmp_path: Path, server: Server, name: str, says: str) -> None:
    server.content |= {"/a.gz": b"other", "/short.gz": b"expected"}
    with pytest.raises(DataError, match=says) as error:
        fetch(remote(name, b"expected"), address(server), tmp_path)
    assert "\n" not in str(error.value) and files_in(tmp_path) == []


@pytest.mark.timeout(300)  # against hanging
def test_silence_and_refusal_end_at_the_first_attempt(tmp_path: Path, server: Server) -> None:
    with pytest.raises(DataError, match="timed out"):
        fetch(remote("slow", b""), address(server), tmp_path / "new", timeout=0.1)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(DataError, match="cannot be reached"):
        fetch(remote("a", b""), f"http://127.0.0.1:{port}", tmp_path / "new")
    assert server.asked == ["/slow"] and not (tmp_path / "new").exists()
    with pytest.raises(DataError, match="only http"):
        fetch(remote("a", b""), "file:///etc", tmp_path)


def publish(
    monkeypatch: pytest.MonkeyPatch, server: Server, name: str, contents: dict[str, bytes]
) -> None:
    """Serve these files as the data set `name`, with their sums in the table."""
    server.content |= {f"/{name}/{file}": content for file, content in contents.items()}
    row = replace(
        data.published(name),
        files=tuple(remote(file, content) for file, content in contents.items()),
    )
    monkeypatch.setitem(REGISTRY, name, row)


def test_open_fetches_what_is_missing_once(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_idx(tmp_path / "made")
    publish(
        monkeypatch,
        server,
        "mnist",
        {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()},
    )
    monkeypatch.setenv("SFUMATO_MIRROR", address(server) + "/")
    for _ in range(2):
        assert len(data.open("mnist").train) == 20
    assert len(server.asked) == 4 and len(files_in(tmp_path / "default" / "mnist")) == 4
    (tmp_path / "default" / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert data.describe("mnist", download=True).counts == {"train": 20, "test": 10}
    assert len(server.asked) == 5  # only the one that was gone


def test_cifar_comes_as_an_archive(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tar_gz("cifar-100-binary", cifar_files("cifar100"))
    publish(monkeypatch, server, "cifar100", {"cifar-100-binary.tar.gz": archive})
    seen: list[str] = []
    here, mirror = tmp_path / "here", address(server)
    splits = data.open(
        "cifar100", data_dir=here, mirror=mirror, progress=lambda *at: seen.append(at[0])
    )
    assert (
        len(splits.train) == 200
        and seen
        and files_in(tmp_path / "here") == ["cifar-100-binary.tar.gz"]
    )


def test_without_the_file_the_error_says_what_to_put_where(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SFUMATO_MIRROR", address(server))
    with pytest.raises(DataError) as error:
        data.open("cifar10", data_dir=tmp_path / "here")
    message = str(error.value)
    for part in (
        "data='cifar10'",
        "answered 404",
        "cifar-10-binary.tar.gz",
        "https://www.cs.toronto.edu/~kriz/",
        str(tmp_path / "here" / "cifar10"),
    ):
        assert part in message
    assert "\n" not in message and not (tmp_path / "here").exists()
    asked = len(server.asked)
    for ask in (lambda: data.open("cifar10", download=False), lambda: data.describe("cifar10")):
        with pytest.raises(DataError, match=r"not found in .*default; put"):
            ask()
    assert len(server.asked) == asked


def test_a_wrong_checksum_is_not_taken(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content["/cifar10/cifar-10-binary.tar.gz"] = b"something else"
    with pytest.raises(DataError, match="not the published c32a1d4ab5d03f1284b67883e8d87530"):
        data.open("cifar10", mirror=address(server))
    assert files_in(tmp_path) == []
