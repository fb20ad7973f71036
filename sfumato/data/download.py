"""Fetch a file and keep it only if its checksum is the published one."""

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from sfumato.core.errors import DataError
from sfumato.core.machine import flush
from sfumato.data.published_sets import RemoteFile

Progress = Callable[[str, int, int | None], None]  # file name, bytes so far, bytes in all if known
CHUNK = 1 << 20


def fetch(
    file: RemoteFile,
    base: str,
    folder: Path,
    progress: Progress | None = None,
    timeout: float = 20.0,
) -> Path:
    """Download `base`/`file.name` into `folder` and return its path. `timeout` is per connection
    and per read.

    The bytes go to a .part file, which becomes the file once its MD5 sum is right and is removed in
    every other case. MD5 guards against damage in transit; it is the only sum that was published
    for these files. Raises DataError.
    """
    url = base.rstrip("/") + "/" + file.name
    if not url.startswith(("http://", "https://")):
        raise DataError(
            f"{url}: only http:// and https:// addresses are fetched; correct SFUMATO_MIRROR"
        )
    part = folder / f".{file.name}.{os.getpid()}.part"
    try:
        found = _stream(url, part, file.name, progress, timeout)
        if found != file.md5:
            raise DataError(
                f"{url}: the download has MD5 {found}, not the published {file.md5}, and was deleted; try again, "
                f"or put the right file into {folder}"
            )
        os.replace(part, folder / file.name)
    except urllib.error.HTTPError as error:
        raise DataError(f"{url}: the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        raise DataError(f"{url}: cannot be reached ({error.reason})") from None
    except (http.client.HTTPException, OSError) as error:
        raise DataError(f"{url}: the download failed ({error})") from None
    finally:
        part.unlink(missing_ok=True)
    return folder / file.name


def _stream(url: str, part: Path, name: str, progress: Progress | None, timeout: float) -> str:
    """Write the body to `part`, durably, and return its MD5 sum."""
    digest = hashlib.md5(usedforsecurity=False)
    request = urllib.request.Request(url, headers={"User-Agent": "sfumato"})
    with contextlib.ExitStack() as stack:
        reply = stack.enter_context(urllib.request.urlopen(request, timeout=timeout))
        part.parent.mkdir(
            parents=True, exist_ok=True
        )  # only now: a failed request leaves no empty folder behind
        out = stack.enter_context(part.open("wb"))
        length = reply.headers.get("Content-Length")
        total = int(length) if length and length.isdigit() else None
        done = 0
        while chunk := reply.read(CHUNK):
            out.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(name, done, total)
        out.flush()
        flush(out.fileno())
    return digest.hexdigest()
