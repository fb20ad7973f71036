"""`sfumato serve`: a page and a JSON endpoint on this computer.

    GET  /          the page: drop an image, see probabilities and the privacy statement
    POST /predict   the bytes of an image file -> {"class": ..., "probabilities": {...}}, or "findings": [...]
    GET  /privacy   the promise in numbers

Nothing that a visitor sends is a path, a name or code: the body is the bytes of one image, which are
decoded in memory, answered and forgotten. A body that is too large is refused before it is read
whole, an image of too many pixels before it is decoded. Only requests that name this host are
answered, and a browser may ask only from our own page (a page elsewhere could otherwise use a
visitor's browser to reach a service that listens on its computer alone).
"""

import socket
import threading
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.core import extras
from sfumato.core.checks import whole
from sfumato.core.errors import ArgumentError, SfumatoError, on_one_line
from sfumato.core.files import read_json
from sfumato.data.decode import decode, why_not
from sfumato.runs.classifier import Classifier
from sfumato.serving.loading import finished

LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
MOST_BYTES = 20 * 2**20
"""Of an upload."""
MOST_PIXELS = 50_000_000
MOST_AT_ONCE = 64
"""Connections; of each an upload may be held. More are told to come again (503)."""
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; frame-ancestors 'none'"
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class TooLarge(Exception):
    """More bytes than are taken."""


def serve(run: Path, host: str, port: int, max_bytes: int, max_pixels: int) -> None:
    """Until Ctrl-C. Raises RunError for a run that is not finished, ArgumentError."""
    extras.need("serve", "serve", str(run))
    import uvicorn

    whole("max_bytes", max_bytes)
    whole("max_pixels", max_pixels)
    if whole("port", port, at_least=0) > 65535:
        raise ArgumentError("port", port, "give a number below 65536")
    own = host in LOOPBACK
    made = app(run, LOOPBACK if own else ("*",), max_bytes, max_pixels)
    listening = _listening(host, port)
    if not own:
        print(
            f"warning   {host} can be reached from other computers, without password or encryption"
        )
    print(f"serving   http://{host}:{listening.getsockname()[1]}/ (Ctrl-C ends it)", flush=True)
    server = uvicorn.Server(
        uvicorn.Config(made, log_level="warning", access_log=False, limit_concurrency=MOST_AT_ONCE)
    )
    server.run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise ArgumentError(
            "port", port, f"{host} cannot listen there ({error.strerror}); give another, or 0"
        ) from None


def app(
    run: Path,
    hosts: tuple[str, ...] = LOOPBACK,
    max_bytes: int = MOST_BYTES,
    max_pixels: int = MOST_PIXELS,
) -> Any:
    """The application (ASGI). hosts: names under which it may be asked. Raises RunError."""
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import Request
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    classifier = finished(run)
    if classifier.on_rows:
        raise ArgumentError("run", str(run), "is a model of feature rows; the page takes images")
    classifier.probabilities(np.zeros((1, *classifier.spec.shape), np.float32))  # compiles it now
    lock, statement = threading.Lock(), read_json(run / "model.json").get("privacy", {})
    room = resources.files("sfumato.serving")
    page, script, style = (
        room.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("html", "js", "css")
    )

    async def predict(request: Request) -> Response:
        if not _from_here(request.headers.get("origin"), request.headers.get("host")):
            return _refusal(403, "only the page of this service may ask from a browser")
        try:
            content = await _body(request, max_bytes)
            with_lock = lambda: _answer(classifier, content, max_pixels, lock)  # noqa: E731
            return JSONResponse(await run_in_threadpool(with_lock), headers=_HEADERS)
        except TooLarge:
            return _refusal(413, f"more than {max_bytes:,} bytes; send a smaller file")
        except SfumatoError as error:
            return _refusal(400, str(error))

    def _refusal(code: int, why: str) -> Response:
        return JSONResponse({"error": on_one_line(why)}, code, headers=_HEADERS)

    def shown(content: str, kind: str) -> Any:
        return lambda request: Response(content, media_type=kind, headers=_HEADERS)

    return Starlette(
        routes=[
            Route("/", lambda request: HTMLResponse(page, headers=_HEADERS)),
            Route("/page.js", shown(script, "text/javascript")),
            Route("/page.css", shown(style, "text/css")),
            Route(
                "/privacy",
                lambda request: JSONResponse(_statement(classifier, statement), headers=_HEADERS),
            ),
            Route("/predict", predict, methods=["POST"]),
        ],
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(dict.fromkeys(hosts)))],
    )


def _statement(classifier: Classifier, privacy: dict[str, Any]) -> dict[str, Any]:
    return {"model": classifier.spec.model, "classes": list(classifier.spec.classes), **privacy}


def _from_here(origin: str | None, host: str | None) -> bool:
    """Browsers name the page that asks; other programs do not."""
    return origin is None or origin == f"http://{host}"


async def _body(request: Any, most: int) -> bytes:
    """The body, of which no more is held than is taken."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise TooLarge
        parts.append(part)
    return b"".join(parts)


def _answer(
    classifier: Classifier, content: bytes, max_pixels: int, lock: threading.Lock
) -> dict[str, Any]:
    """Raises DataError for bytes that are no image. Under the lock from the first byte on: a small file may be a
    large image, and many at once would fill the memory."""
    from dataclasses import replace

    from sfumato.core.errors import DataError

    with lock:
        try:
            pixels = decode(content, replace(classifier.reading, max_pixels=max_pixels))
        except SfumatoError:
            raise
        except Exception as error:  # on hostile bytes a decoder may raise almost anything
            raise DataError(f"not a readable image ({why_not(error)})") from None
        if pixels.shape != classifier.spec.shape:
            (height, width, _), (h, w, _) = classifier.spec.shape, pixels.shape
            raise DataError(f"{w}x{h} pixels; this model needs {width}x{height}")
        found = classifier.probabilities(classifier.pixels(pixels[None]))
    called, row = classifier.decide(found)[0], found[0]
    names, task = classifier.spec.classes, classifier.spec.task
    return {
        **task.as_json(names, called),
        "probabilities": {name: round(float(p), 6) for name, p in zip(names, row, strict=True)},
    }
