"""The processes that train a sweep, known to every other process from files.

outputs/sweeps/NAME/launchers/HOST-PID.json says who trains the sweep. That process holds a lock on its file, which the
system frees when the process dies, however it dies: a file without a lock is a leftover, and the next look removes it.
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

from headsweep.credentials import hidden
from headsweep.errors import Interrupted
from headsweep.processes import not_ignored
from headsweep.tracking.metrics_log import LATEST
from headsweep.tracking.typed_files import Damaged, parse_json, require


@dataclass(frozen=True)
class Launcher:
    """A process that trains a sweep."""

    pid: int
    host: str
    started: float  # Unix time
    command: str

    def check(self) -> None:
        """Raise ValueError for what is no process: 0 and less would be a group of them, or all."""
        require("pid", self.pid, 1 <= self.pid < 2**31, "the number of a process")
        require("started", self.started, 0 <= self.started <= LATEST, "seconds since 1970")

    @property
    def is_here(self) -> bool:
        """Does it run on this machine?"""
        return self.host == os.uname().nodename

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextlib.contextmanager
def launching(sweep: Path, command: str | None = None) -> Iterator[None]:
    """Be known, while the body runs, as a process that trains the sweep in folder `sweep`, and as one that `stop` ends.

    `command` says what it is; without it, that is the command line.

    Raises:
        Interrupted: SIGTERM or SIGHUP came where the body does not catch it.
    """
    command = command or hidden(shlex.join([sys.executable, *sys.argv]))
    here = Launcher(os.getpid(), os.uname().nodename, time.time(), command)
    path = sweep / "launchers" / f"{here.host}-{here.pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    with aside.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(asdict(here)))
        file.flush()
        aside.replace(path)  # the lock stays with the file: nobody ever sees it without
        before = {it: signal.signal(it, _interrupt) for it in not_ignored([signal.SIGTERM, signal.SIGHUP])}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            path.unlink(missing_ok=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Interrupted(number)


def find(sweep: Path) -> list[Launcher]:
    """The processes that train the sweep in folder `sweep` now.

    Raises:
        Damaged: the file of one is not as `launching` writes it.
    """
    return [launcher for path in sorted((sweep / "launchers").glob("*.json")) if (launcher := _living(path))]


def stop(sweep: Path, patience: float) -> dict[Launcher, str]:
    """Ask the processes on this machine that train a sweep to stop, as Ctrl-C would, and wait `patience` seconds.

    Returns:
        What became of each process, in words.
    """
    outcomes = dict.fromkeys(find(sweep), "runs on another machine; cancel it there")
    here = {launcher for launcher in outcomes if launcher.is_here}
    for launcher in here:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(launcher.pid, signal.SIGTERM)
    deadline = time.monotonic() + patience
    while (left := here & set(find(sweep))) and time.monotonic() < deadline:
        time.sleep(0.05)
    return outcomes | {one: "was asked to stop and still runs" if one in left else "has stopped" for one in here}


def _living(path: Path) -> Launcher | None:
    try:
        with path.open() as file:
            if _is_held(file.fileno()):
                return parse_json(file.read(), Launcher)
    except FileNotFoundError:  # it ended between the listing and the look
        return None
    except (OSError, ValueError) as error:
        raise Damaged(path, f"it cannot be read ({error})", "end the process that holds it, or remove it") from error
    if path.stem.rpartition("-")[0] == os.uname().nodename:  # locks of other machines may not be seen from here
        path.unlink(missing_ok=True)
    return None


def _is_held(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
