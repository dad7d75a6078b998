"""Which run trains in which slot, and what happens to those that fail, hang, run out of memory or are stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

from headsweep.errors import Interrupted, UserError
from headsweep.launch.launcher import Notify
from headsweep.launch.local.gpu_memory import Packing, fits
from headsweep.launch.local.gpus import free_gib
from headsweep.launch.local.slots import Slots
from headsweep.launch.local.timeout_clock import TimeoutClock
from headsweep.launch.progress_bars import Display
from headsweep.launch.signals import StopRequest
from headsweep.tracking.run_folder import RunFolder, RunState

POLL_SECONDS = 0.2  # between two checks of signals, of runs without progress, and of those of other sweeps
# The errors of torch on a GPU, of CUDA and its libraries, of Python, and of torch on a CPU.
OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|CUDA error: out of memory|STATUS_ALLOC_FAILED|MemoryError|can't allocate memory"
)
BUSY = os.EX_TEMPFAIL  # exit code of a process whose run is trained by another sweep
UNKNOWN = 255  # exit code that multiprocessing gives a process whose forkserver was killed

Start = Callable[[RunFolder, str | None], tuple[ForkServerProcess, Connection]]


@dataclass
class _Training:
    """A run and its process."""

    folder: RunFolder
    gpu: str | None
    alone: bool  # no other run may use the GPU, or, without one, the machine
    process: ForkServerProcess
    connection: Connection
    failed_tries: int  # before this one
    silent: float = 0.0  # seconds without progress
    taken: float = 0.0  # GiB of the GPU's memory so far
    evaluated: bool = False  # it has ended an epoch here, and taken all the memory that it needs
    reason: str | None = None  # why it was killed here, or has failed as its process reported

    def receive(self, display: Display, notify: Notify) -> bool:
        """Pass on the progress that the process has sent; return False once it has ended."""
        try:
            while self.connection.poll():
                progress = self.connection.recv()
                self.silent = 0.0
                if isinstance(progress, str):
                    self.reason = progress
                    continue
                self.taken = progress.gpu_memory_gib or 0.0
                display.progress(self.folder, progress)
                if progress.metrics:
                    self.evaluated = True
                    notify(self.folder)
        except (EOFError, OSError):
            return False
        return True

    def kill(self, why: str | None = None) -> None:
        """End the process at once; the last checkpoint is on disk."""
        self.reason = why
        self.process.kill()
        self.process.join()

    def end(self) -> int:
        """Return the exit code of the process, which has ended, or is about to."""
        self.process.join()
        assert self.process.exitcode is not None
        return self.process.exitcode

    def died_of(self) -> str | None:
        """Return why the process failed, if it did and its run's folder has no reason."""
        code = self.end()
        if code == 0 or self.folder.result() is not None or self.folder.failed_tries() > self.failed_tries:
            return None
        if self.reason:
            return self.reason
        return f"the process {_killed_by(-code) if code < 0 else f'ended with exit code {code}'}"

    def ran_out_of_memory(self) -> bool:
        """Return whether it ended for lack of memory."""
        code = self.end()
        if code == 0 or self.reason or self.folder.result() is not None:
            return False
        return code == -signal.SIGKILL or bool(OUT_OF_MEMORY.search(self.folder.failure() or ""))


class Schedule:
    """The runs that wait and those that train."""

    def __init__(
        self,
        folders: Sequence[RunFolder],
        slots: Slots,
        start: Start,
        timeout: float | None,
        display: Display,
        notify: Notify,
        request: StopRequest | None = None,
    ) -> None:
        """`start` gives a run a process on a GPU; `timeout` is in minutes.

        `request` is one whose block has begun already; without it, Ctrl-C and SIGTERM are handled while runs train.
        """
        self._request = contextlib.nullcontext(request) if request else StopRequest()
        self._slots, self._start, self._timeout = slots, start, timeout
        self._display, self._notify = display, notify
        self._packing = Packing(folders[0].output.path)
        self._waiting = list(folders)
        self._failed_tries = {folder: folder.failed_tries() for folder in folders}
        self._waiting_alone: dict[str | None, deque[RunFolder]] = defaultdict(deque)  # by GPU
        self._had_no_memory: set[RunFolder] = set()
        self._training: dict[int, _Training] = {}  # by slot
        self._unknown: set[RunFolder] = set()  # runs that have ended once with an unknown exit code
        self._no_process = False  # no process could be started since the last one ended
        self._clock = TimeoutClock()
        self._stopping = False

    def __call__(self) -> None:
        """Train all runs.

        Raises:
            Interrupted: the process was asked to stop; every run has stopped.
        """
        try:
            with self._request as request:
                while self._training or (self._is_work_left() and not self._stopping):
                    if request.made() and not self._stopping:
                        self._ask_to_stop()
                    if not self._stopping:
                        self._fill_slots()
                    self._receive()
                if request.signal is not None:
                    raise Interrupted(request.signal)
        finally:
            for training in self._training.values():
                training.kill()
                self._notify(training.folder)

    def _is_work_left(self) -> bool:
        return bool(self._waiting) or any(self._waiting_alone.values())

    def _fill_slots(self) -> None:
        for slot in range(self._slots.count):
            if slot not in self._training and not self._no_process:
                gpu = self._slots.gpu(slot)
                neighbours = [training for training in self._training.values() if training.gpu == gpu]
                if any(training.alone for training in neighbours):
                    continue
                if self._waiting_alone[gpu]:
                    if not neighbours:
                        self._begin(slot, self._waiting_alone[gpu].popleft(), alone=True)
                elif folder := self._next(gpu, neighbours):
                    self._begin(slot, folder, alone=False)

    def _next(self, gpu: str | None, neighbours: Sequence[_Training]) -> RunFolder | None:
        """Return the first waiting run that no other sweep trains and that fits on the GPU beside its neighbours."""
        there = [(self._packing.need(training.folder), training.taken) for training in neighbours] if gpu else []
        free = free_gib(gpu) if gpu and there else 0.0
        for folder in self._waiting.copy():
            if there and not fits(self._packing.need(folder), free, there):
                continue
            if folder.state() is RunState.running:
                continue
            self._waiting.remove(folder)
            if folder.result() is None and folder.failed_tries() <= self._failed_tries[folder]:
                return folder
            self._notify(folder)
            self._display.ended(folder)
        return None

    def _begin(self, slot: int, folder: RunFolder, alone: bool) -> None:
        """Give a run a process, or let it wait until another run ends. Raises UserError if no other run trains."""
        gpu = self._slots.gpu(slot)
        try:
            process, connection = self._start(folder, gpu)
        except UserError as error:
            if not self._training:
                raise
            self._no_process = True
            (self._waiting_alone[gpu].appendleft if alone else partial(self._waiting.insert, 0))(folder)
            self._display.say(f"{error}; waiting for a run to end")
            return
        self._display.started(folder)
        self._training[slot] = _Training(folder, gpu, alone, process, connection, folder.failed_tries())

    def _receive(self) -> None:
        wait([training.connection for training in self._training.values()], POLL_SECONDS)
        passed = self._clock.passed()
        for slot, training in list(self._training.items()):
            lives = training.receive(self._display, self._notify)
            if training.evaluated and training.gpu:
                self._packing.observe(training.folder, training.taken)
            if lives:
                training.silent += passed
                self._kill_if_silent(training)
            else:
                del self._training[slot]
                self._end(training)

    def _kill_if_silent(self, training: _Training) -> None:
        if self._timeout is not None and training.silent > 60 * self._timeout:
            training.kill(f"no progress for {self._timeout:g} minutes (hydra.launcher.timeout): killed")

    def _end(self, training: _Training) -> None:
        folder = training.folder
        self._no_process = False
        if training.end() == BUSY or self._is_unknown(training):
            self._display.left(folder)
            self._waiting.append(folder)
            return
        if self._stopping:
            self._notify(folder)
            self._display.left(folder)
            return
        if reason := training.died_of():
            self._fail(folder, reason)
        self._notify(folder)
        if training.ran_out_of_memory() and folder not in self._had_no_memory:
            self._had_no_memory.add(folder)
            self._waiting_alone[training.gpu].append(folder)
            self._display.left(folder)
            where = "this machine" if training.gpu is None else "its GPU"
            what = "killed, perhaps for lack of memory" if training.end() < 0 else "out of memory"
            self._display.say(f"{folder.record().name}  {what}: tried once more, alone on {where}")
        else:
            self._display.ended(folder)

    def _is_unknown(self, training: _Training) -> bool:
        """Return, once for each run, whether its exit code is unknown: it is started again, and ends if it was over."""
        folder = training.folder
        if training.end() != UNKNOWN or folder.result() is not None or self._stopping or folder in self._unknown:
            return False
        self._unknown.add(folder)
        return True

    def _fail(self, folder: RunFolder, reason: str) -> None:
        try:
            folder.fail(reason)
        except OSError as error:  # on a full disk the other runs may still end well
            self._display.say(f"{folder.record().name}  {reason} ({folder.path}: {error.strerror})")

    def _ask_to_stop(self) -> None:
        self._stopping = True
        for training in self._training.values():
            training.process.terminate()
        self._display.say("stopping: every run ends its step and writes a checkpoint; a second signal stops at once")


def _killed_by(number: int) -> str:
    cause = "; the system sends it when memory runs out" if number == signal.SIGKILL else ""
    return f"was killed by signal {number} ({signal.Signals(number).name}{cause})"
