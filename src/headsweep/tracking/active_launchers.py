"""The processes that train a sweep, registered in files for all other processes.

A process that trains a sweep holds a lock on its file outputs/sweeps/NAME/launchers/HOST-PID.json. The system releases
the lock when the process ends in any way: a file without a lock is stale, and the next `find` removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from headsweep.credentials import redacted
from headsweep.errors import Interrupted
from headsweep.tracking.metrics_log import LATEST
from headsweep.tracking.typed_files import Damaged, parse_json, require

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


@dataclass(frozen=True)
class LauncherProcess:
    """A process that trains a sweep."""

    pid: int
    host: str
    started: float  # Unix time
    command: str

    def check(self) -> None:
        """Raise ValueError for an impossible process: numbers below 1 mean a group of processes, or all."""
        require("pid", self.pid, 1 <= self.pid < 2**31, "a process number")
        require("started", self.started, 0 <= self.started <= LATEST, "seconds since 1970")

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine."""
        return self.host == os.uname().nodename

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextlib.contextmanager
def launching(sweep: Path, command: str | None = None) -> Iterator[None]:
    """Register this process, while the body runs, as one that trains the sweep in folder `sweep` and that `stop` ends.

    `command` describes it; the default is the command line.

    Raises:
        Interrupted: SIGINT, SIGTERM or SIGHUP arrived where neither the body nor the caller handles it.
    """
    command = command or redacted(shlex.join([sys.executable, *sys.argv]))
    here = LauncherProcess(os.getpid(), os.uname().nodename, time.time(), command)
    path = sweep / "launchers" / f"{here.host}-{here.pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(asdict(here)))
        file.flush()
        part.replace(path)  # the lock stays with the file, which is never visible without it
        # One that is ignored, as SIGHUP under `nohup`, stays so; under torchrun a StopRequest has begun before.
        unhandled = [it for it in _SIGNALS if signal.getsignal(it) in _DEFAULTS]
        before = {it: signal.signal(it, _interrupt) for it in unhandled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            path.unlink(missing_ok=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def find(sweep: Path) -> list[LauncherProcess]:
    """Return the processes that train the sweep in folder `sweep` now.

    Raises:
        Damaged: a file is not as `launching` writes it.
    """
    return [launcher for path in sorted((sweep / "launchers").glob("*.json")) if (launcher := _read(path))]


def stop(sweep: Path, patience: float) -> dict[LauncherProcess, str]:
    """Stop the processes on this machine that train a sweep, as Ctrl-C would, and wait `patience` seconds for it.

    Returns:
        The outcome of each process, in words.
    """
    outcomes = dict.fromkeys(find(sweep), "runs on another machine; cancel it there")
    here = {launcher for launcher in outcomes if launcher.is_here}
    for launcher in here:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(launcher.pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while (left := here & set(find(sweep))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return outcomes | {one: "has not stopped yet" if one in left else "has stopped" for one in here}


def _read(path: Path) -> LauncherProcess | None:
    try:
        with path.open() as file:
            if _is_held(file.fileno()):
                return parse_json(file.read(), LauncherProcess)
    except FileNotFoundError:  # it ended after the listing
        return None
    except (OSError, ValueError) as error:
        raise Damaged(path, f"it cannot be read ({error})", "end its process, or remove it") from error
    if path.stem.rpartition("-")[0] == os.uname().nodename:  # locks of other machines may be invisible here
        path.unlink(missing_ok=True)
    return None


def _is_held(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
