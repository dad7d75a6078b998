"""Child processes: deaf to the signals that their launcher answers, and gone when their parent is.

A terminal or a cluster's scheduler signals every process of a job. Only the launcher answers; it tells its children.
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

LAUNCHER_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
POLL_SECONDS = 0.2  # how often a child looks whether its parent is there


def answered(signals: Sequence[int]) -> list[int]:
    """Return those of `signals` that are to be handled: not a SIGHUP that `nohup` has this process ignore."""
    return [it for it in signals if it != signal.SIGHUP or signal.getsignal(it) is not signal.SIG_IGN]


@contextmanager
def born_deaf() -> Iterator[None]:
    """Processes that are started in this block do not hear the launcher's signals; this one hears them after it.

    The signals are blocked, not ignored: a child that is to hear one unblocks it, and has then missed none.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, LAUNCHER_SIGNALS)
    try:
        resource_tracker.ensure_running()  # now, as its start unblocks two of them
        signal.pthread_sigmask(signal.SIG_BLOCK, LAUNCHER_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Let a thread end this process, which was born deaf, once its parent has ended or sends it SIGTERM."""
    parent = multiprocessing.parent_process()
    assert parent is not None and parent.pid is not None

    def watch() -> None:
        while parent.is_alive():
            heard = signal.sigtimedwait([signal.SIGTERM], POLL_SECONDS)
            if heard is not None and heard.si_pid == parent.pid:
                break
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def starved(error: BaseException) -> str:
    """Say in a line why a library was not loaded, or memory not given, and which limit to raise if there is one."""
    what = f"{type(error).__name__}: {error}".strip(": ").split("\n", 1)[0]
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return f"{what}; install what is missing, or free memory"
    return f"{what}; expected more address space than the limit of {limit >> 20} MiB; raise it (ulimit -v unlimited)"
