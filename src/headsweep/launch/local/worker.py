"""The tasks of the local launcher's processes. The forkserver preloads this module (`preload`)."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from headsweep.config import RunConfig
from headsweep.data.token_folder import TOKENS_LOGGER
from headsweep.errors import UserError
from headsweep.launch.local.scheduler import BUSY
from headsweep.run import predictor, trial
from headsweep.run.lock_step import in_lock_step
from headsweep.run.precision import PRECISION_LOGGER
from headsweep.run.token_streams import TokenStreams
from headsweep.run.train_run import not_usable, preflight, train_in_steps
from headsweep.tracking.cost import RunCost
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sharing import share_with_group
from headsweep.training.in_steps import InSteps
from headsweep.training.progress import Busy, Notice, Progress, Stopped


def train(paths: Sequence[Path], threads: int, gpu: str | None, until: int | None, connection: Connection) -> None:
    """Train the runs in `paths` in turn, step by step, to epoch `until` or to their ends.

    Sends pairs of the number of a run and its Progress; a Notice; a text, why it has failed; or an exit code, once it
    has ended: 0, 1 if it failed, BUSY. SIGTERM makes each run write a checkpoint after its current step.
    """
    _follow_parent()
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    _compute_on(threads, gpu)
    folders, streams = [RunFolder(path) for path in paths], TokenStreams()
    share_with_group(folders[0].output.path)  # here, too: the forkserver may be older than the sweep

    def train(number: int) -> InSteps[None]:
        if number and received:  # before it has begun
            raise Stopped

        def watch(progress: Progress) -> None:
            connection.send((number, progress))

        def stop() -> bool:
            return bool(received)

        yield from train_in_steps(folders[number], watch, stop, until, device=gpu and "cuda", streams=streams)

    logs = _opened(folders, connection)
    forwarder = Forwarder(connection, logs)
    for name in (TOKENS_LOGGER, PRECISION_LOGGER):
        logging.getLogger(name).addHandler(forwarder)
    for number, error in in_lock_step([train(number) for number in range(len(folders))], logs.enter):
        if isinstance(error, UserError):
            connection.send((number, str(error)))  # the disk may be too full to write it to the run's folder
        connection.send((number, _exit_code(error)))
        if "CUDA error" in str(error):  # no run of this process can use the GPU any more
            sys.exit(1)


def _opened(folders: Sequence[RunFolder], connection: Connection) -> Logs:
    """Return the logs of the runs. If one cannot be opened, send the reason for all of them, and exit with 1."""
    try:
        return Logs(folder.log for folder in folders)
    except OSError as error:
        for number in range(len(folders)):
            connection.send((number, not_usable(folders[number], error)))
        sys.exit(1)


def _exit_code(error: Exception | None) -> int:
    """Return the exit code of a run, and print the error of one that has failed."""
    if error is None or isinstance(error, Stopped):
        return 0
    if isinstance(error, Busy):
        return BUSY
    if isinstance(error, UserError):
        print(f"headsweep: {error}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    return 1


class Logs:
    """What this process and its libraries print goes to the log of the run whose turn it is."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._handles = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666) for path in paths]
        self.current: int | None = None  # number of the run whose turn it is

    def enter(self, number: int) -> None:
        """Begin the turn of a run."""
        if number != self.current:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(self._handles[number], 1)
            os.dup2(self._handles[number], 2)
            self.current = number


class Forwarder(logging.Handler):
    """Sends what is logged to the launcher, too: the logs of runs that end well are rarely read."""

    def __init__(self, connection: Connection, logs: Logs) -> None:
        super().__init__()
        self._connection, self._logs = connection, logs

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr)  # as logging does where there is no handler
        self._connection.send((self._logs.current, Notice(record.getMessage())))


def check(runs: Sequence[RunConfig], connection: Connection) -> None:
    """Send the cost of each run, or the UserError why it cannot be built."""
    _follow_parent()
    answers: list[RunCost | UserError] = []
    for run in runs:
        try:
            answers.append(preflight(run))
        except UserError as error:
            answers.append(error)
    connection.send(answers)


def log_models(folders: Sequence[RunFolder], config: RunConfig, connection: Connection) -> None:
    """Send how many models the tracker of `config` lacked, or why it did not take them. It is imported here."""
    _follow_parent()
    share_with_group(Path(config.paths.output))
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
    Logs([Path(os.devnull)]).enter(0)
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
