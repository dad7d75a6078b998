"""Child processes: they do not receive the signals that their launcher handles, and end when their parent does.

A terminal or a cluster's scheduler signals every process of a job. Only the launcher handles that, and signals its
children.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker

from headsweep.text import typed_line

LAUNCHER_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
POLL_SECONDS = 0.2  # between two checks of a child that its parent is alive
SAFE_PATH = "PYTHONSAFEPATH"  # with `-c` and `-m`, Python (from 3.11) then finds no modules in the working directory


@contextmanager
def exported(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for programs that are started in this block."""
    given = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]
        else:
            os.environ[name] = given


def not_ignored(signals: Sequence[int]) -> list[int]:
    """Return `signals` without a SIGHUP that this process ignores, as under `nohup`."""
    return [it for it in signals if it != signal.SIGHUP or signal.getsignal(it) is not signal.SIG_IGN]


@contextmanager
def signals_blocked() -> Iterator[None]:
    """Block the launcher's signals for processes that are started in this block; this one gets them after it.

    They are blocked, not ignored: a child that is to handle one unblocks it, and has then missed none.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LAUNCHER_SIGNALS)
    try:
        resource_tracker.ensure_running()  # now, as its start unblocks two of them
        signal.pthread_sigmask(signal.SIG_BLOCK, LAUNCHER_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Let a thread end this process, which blocks signals, once its parent has ended or sends it SIGTERM."""
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None

    def watch() -> None:
        while parent.is_alive():
            received = signal.sigtimedwait([signal.SIGTERM], POLL_SECONDS)
            if received is not None and received.si_pid == parent.pid:
                break
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def resource_error(error: BaseException) -> str:
    """Return a line about a library that cannot be loaded, or too little memory, and which limit to raise."""
    what = typed_line(error)
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return f"{what}; install what is missing, or free memory"
    return f"{what}; expected more address space than the limit of {limit >> 20} MiB; raise it (ulimit -v unlimited)"
