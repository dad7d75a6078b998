"""How a command ends: each expected error is one line on stderr and an exit code; anything else is a traceback."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from headsweep import console
from headsweep.config.composition import KNOWN, one_line
from headsweep.credentials import redacted
from headsweep.errors import Crash, FailedRunsError, Interrupted, LostPeer, UserError
from headsweep.processes import resource_error
from headsweep.text import escaped

FULL_ERRORS = os.environ.get("HYDRA_FULL_ERROR", "0") != "0"  # Hydra's own switch: show tracebacks
_FOLDERS = "runs are written to paths.output, what torch compiles to TORCHINDUCTOR_CACHE_DIR"
_ADVICE = {
    errno.ENOSPC: f"; free some space, or choose another disk: {_FOLDERS}",
    errno.EDQUOT: f"; free some space, or choose another disk: {_FOLDERS}",
    errno.EACCES: f"; choose a folder that you may write: {_FOLDERS}",
    errno.EROFS: f"; choose a folder that you may write: {_FOLDERS}",
}


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print a user's mistake as one line and exit with 2; failed runs exit with 1, Ctrl-C with 130, SIGTERM with 143.

    A closed terminal (SIGHUP) exits with 129, a process that has lost another one of its run with 143. An output stream
    that refuses text raises nothing: see `console`.

    HYDRA_FULL_ERROR=1 shows tracebacks instead, as in any Hydra application.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print, over many lines
    try:
        with console.tolerant(), exit_on_errors():
            yield
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


@contextmanager
def exit_on_errors() -> Iterator[None]:
    """Exit as `one_line_errors` does, where that is already prepared."""
    try:
        yield
    except FailedRunsError as error:
        _exit(1, error, str(error))
    except Crash as error:
        if FULL_ERRORS:
            raise
        print(redacted(str(error)), file=sys.stderr)
        sys.exit(1)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _exit(2, error, one_line(error))
    except OSError as error:
        _exit(2, error, system_error(error))
    except (ImportError, MemoryError) as error:
        _exit(2, error, resource_error(error))
    except Interrupted as error:
        _exit(128 + error.signal, error, "interrupted; the same command goes on from the runs' last checkpoints")
    except KeyboardInterrupt as error:  # where nothing trains
        _exit(128 + signal.SIGINT, error, "interrupted")
    except LostPeer as error:
        _exit(143, error, f"{error}; the same command goes on from the run's last checkpoint")


@contextmanager
def crashing() -> Iterator[None]:
    """Raise Crash for an unexpected error, which `composing` around it would report as the user's mistake."""
    try:
        yield
    except KNOWN:
        raise
    except Exception as error:
        raise Crash(traceback.format_exc()) from error


def _exit(code: int, error: BaseException, message: str) -> NoReturn:
    if FULL_ERRORS:
        raise error
    sys.stdout.flush()
    if os.environ.get("RANK", "0") == "0" or isinstance(error, LostPeer):  # an error of all ranks is printed by one
        lines = re.split(r"\n(?=  )", redacted(message))  # an indented line for each of several mistakes
        print(f"headsweep: {chr(10).join(map(escaped, lines))}", file=sys.stderr)
    sys.exit(code)


def system_error(error: OSError) -> str:
    """Return what failed, where, and, if it is known, what to do."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or f'{type(error).__name__}: {error}'}{_ADVICE.get(error.errno or 0, '')}"
