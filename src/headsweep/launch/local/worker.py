"""The tasks of the local launcher's processes. The forkserver preloads this module (`preload`)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from headsweep.config import RunConfig
from headsweep.errors import UserError
from headsweep.launch.local.scheduler import BUSY
from headsweep.plan.plan import Cost
from headsweep.run import predictor, trial
from headsweep.run.train_run import preflight, train_folder
from headsweep.tracking.run_folder import RunFolder
from headsweep.training.progress import Busy, Stopped


def train(path: Path, threads: int, gpu: str | None, until: int | None, connection: Connection) -> None:
    """Train the run in `path`, to epoch `until` or to its end, and send its progress through `connection`.

    The exit code is 1 if it fails. SIGTERM makes it write a checkpoint after the current step and end with exit code 0.
    """
    _follow_parent()
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    _compute_on(threads, gpu)
    folder = RunFolder(path)
    _print_to(folder.log)
    try:
        train_folder(folder, connection.send, lambda: bool(received), until, device=gpu and "cuda")
    except Stopped:
        return
    except Busy:
        sys.exit(BUSY)
    except UserError as error:
        connection.send(str(error))  # the disk may be too full to write it to the run's folder
        sys.exit(f"headsweep: {error}")


def check(runs: Sequence[RunConfig], connection: Connection) -> None:
    """Send the cost of each run, or the UserError why it cannot be built."""
    _follow_parent()
    answers: list[Cost | UserError] = []
    for run in runs:
        try:
            answers.append(preflight(run))
        except UserError as error:
            answers.append(error)
    connection.send(answers)


def log_models(folders: Sequence[RunFolder], config: RunConfig, connection: Connection) -> None:
    """Send how many models the tracker of `config` lacked, or why it did not take them. It is imported here."""
    _follow_parent()
    try:
        connection.send(predictor.log_models(folders, config))
    except UserError as error:
        connection.send(str(error))


def speed(run: RunConfig, threads: int, gpu: str | None, connection: Connection) -> None:
    """Train without writing files, and send how fast, as `trial.time_steps`; or why that fails."""
    _rehearse(threads, gpu, connection, lambda: trial.time_steps(_placed(run, gpu), connection))


def memory(run: RunConfig, threads: int, gpu: str | None, connection: Connection) -> None:
    """Train some steps without writing files, and send what `trial.memory` returns; or why that fails."""
    _rehearse(threads, gpu, connection, lambda: connection.send(trial.memory(_placed(run, gpu))))


def _placed(run: RunConfig, gpu: str | None) -> RunConfig:
    """Return the run on `gpu`, the only one that the process sees: `cuda:1` would not exist there."""
    return replace(run, device="cuda") if gpu else run


def _rehearse(threads: int, gpu: str | None, connection: Connection, task: Callable[[], None]) -> None:
    _follow_parent()
    _compute_on(threads, gpu)
    _print_to(Path(os.devnull))
    try:
        task()
    except Exception as error:
        connection.send(_message(error))


def _message(error: Exception) -> str:
    """Return an error's message, with the name of its class unless it is a UserError."""
    return str(error) if isinstance(error, UserError) else "".join(traceback.format_exception_only(error))


def _compute_on(threads: int, gpu: str | None) -> None:
    torch.set_num_threads(threads)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def _follow_parent() -> None:
    """End with the launcher, even if it is killed: nothing would watch the run."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _print_to(log: Path) -> None:
    """Send what this process and its libraries print to the run's log."""
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
