"""Weights from the Hugging Face hub: through its own client, into its own cache, from the cache
when there is no network."""

import re
from pathlib import Path
from typing import Any

from sfumato.core.errors import WeightsError, said

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""What a repository's weights are called, in order of preference."""
CONFIGS = ("config.json", "preprocessor_config.json")
_TIMEOUT = 10.0


def is_repository(name: str) -> bool:
    """Could it be OWNER/NAME or OWNER/NAME@REVISION?"""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?", name) is not None


def download(name: str, cache_dir: Path | None = None) -> Path:
    """OWNER/NAME, or OWNER/NAME@REVISION (branch, tag or commit) -> a directory with its weights
    and configuration.

    What is in the cache (cache_dir, or the hub's own) is not fetched again. Raises WeightsError.
    """
    try:
        from huggingface_hub import errors
    except ImportError:
        raise WeightsError(
            f"weights={name!r}: the hub's client is missing; pip install 'sfumato[hub]', or give the path of a "
            "file or directory"
        ) from None
    repository, _, revision = name.partition("@")
    try:
        where: dict[str, Any] = {
            "cache_dir": cache_dir,
            "local_files_only": not _reachable(repository, revision or None),
        }
        file = _first(repository, {**where, "revision": revision or None})
        if file is None and where["local_files_only"]:
            raise WeightsError(
                f"weights={name!r}: not in the hub's cache, and the hub cannot be reached; connect to the "
                "network, or give the path of a file or directory"
            )
        if file is None:
            raise WeightsError(
                f"weights={name!r}: the repository has neither {' nor '.join(WEIGHTS)}; name another, or give "
                "the path of a file"
            )
        for each in CONFIGS:
            _one(repository, each, {**where, "revision": file.parent.name})  # of the same commit
    except errors.GatedRepoError:
        raise WeightsError(
            f"weights={name!r}: the hub asks who you are; accept the license on the hub's page, then log in "
            "with `hf auth login`"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError):
        raise WeightsError(
            f"weights={name!r}: the hub has no such repository or revision; correct the name, or give the path "
            "of a file"
        ) from None
    except (errors.HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"weights={name!r}: the download failed ({said(error)}); try again, or give the path of a file"
        ) from None
    return file.parent


def _reachable(repository: str, revision: str | None) -> bool:
    """One question without a second attempt: the client's downloads repeat theirs for half a
    minute."""
    import huggingface_hub as client
    from huggingface_hub import errors

    try:
        client.get_hf_file_metadata(
            client.hf_hub_url(repository, CONFIGS[0], revision=revision), timeout=_TIMEOUT
        )
    except errors.EntryNotFoundError:
        return True
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code >= 500:
            return False
        raise
    except errors.HFValidationError:
        raise
    except Exception:  # which kind says that there is no network depends on the client's version
        return False
    return True


def _first(repository: str, where: dict[str, Any]) -> Path | None:
    return next(
        (found for file in WEIGHTS if (found := _one(repository, file, where)) is not None), None
    )


def _one(repository: str, file: str, where: dict[str, Any]) -> Path | None:
    """The file's place in the cache; None if the repository, or without a network the cache, has no
    such file."""
    import huggingface_hub as client
    from huggingface_hub import errors

    try:
        return Path(client.hf_hub_download(repository, file, **where))
    except errors.EntryNotFoundError:
        return None
