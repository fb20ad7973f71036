"""The command line: parse -> config -> call. No logic, and nothing heavy is imported before a
command runs."""

import errno
import os
import shlex
import sys
import traceback
import warnings
from typing import NoReturn

from sfumato.cli.parser import parse
from sfumato.core import machine, plugins, program_cache
from sfumato.core.errors import SfumatoError, on_one_line


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Errors of the user's making are one line on standard error and exit code 2."""
    # The threads of numpy's OpenBLAS would spin for work after each product, on the cores that XLA
    # needs for its next step: a pass of the linear heads takes 1.15 times as long
    # (docs/features.md). It is read when numpy is first imported.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    usual, warnings.formatwarning = warnings.formatwarning, one_line
    try:
        machine.refuse_unsupported()
        arguments = sys.argv[1:] if arguments is None else arguments
        _allow_typed(arguments)
        command = parse(arguments)
        program_cache.arrange()
        for name in getattr(command, "trust", ()):  # events and samplers are known once imported
            plugins.find("trust", name)
        command()
    except SfumatoError as error:
        print(f"sfumato: {error}", file=sys.stderr)
        _leave(2)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        if error.errno not in _DISK:
            raise
        print(
            f"sfumato: {error.filename or 'the disk'}: {error.strerror}; nothing is lost: make room or mend the permissions, "
            "then `sfumato resume` the run, or begin it again if it has no directory yet",
            file=sys.stderr,
        )
        _leave(2)
    except KeyboardInterrupt as stopped:
        begun = getattr(stopped, "run", None)
        way_on = (
            f"`sfumato resume {shlex.quote(str(begun))}` continues it"
            if begun
            else "the same command starts again"
        )
        print(f"sfumato: stopped; {way_on}", file=sys.stderr)
        _leave(130)
    except Exception:
        if not _together():
            raise
        traceback.print_exc()
        _leave(1)
    finally:
        warnings.formatwarning = usual


def _together() -> bool:
    """Does this process work with others? JAX is not imported to ask."""
    layout = sys.modules.get("sfumato.core.devices")
    return layout is not None and layout.together()


def _leave(code: int) -> NoReturn:
    """At once where others wait for this process: they would never come to the end that JAX's own exit
    waits for."""
    if _together():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning for whoever types commands: what it says, not where in the code it is said."""
    return f"sfumato: warning: {on_one_line(str(message))}\n"


def _allow_typed(arguments: list[str]) -> None:
    """Code from outside may be imported where its name was typed, as `--noise NAME` or
    `--noise=NAME`, also with others as in `--augment shift+NAME`: not where it stands in a file,
    that of --config included."""
    typed = (*arguments, *(word.partition("=")[2] for word in arguments))
    plugins.allow(*typed, *(part for word in typed for part in word.split("+")))


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
