"""Which run trains in which slot, and what happens to those that fail, hang, run out of memory or are stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess

from headsweep.errors import Interrupted, UserError
from headsweep.launch.launcher import Notify
from headsweep.launch.local.gpu_memory import Packing, fits
from headsweep.launch.local.gpus import free_gib
from headsweep.launch.local.grouping import Candidate, grouped, shared_line
from headsweep.launch.local.slots import Slots
from headsweep.launch.local.timeout_clock import TimeoutClock
from headsweep.launch.progress_bars import Display
from headsweep.launch.signals import StopRequest
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.training.progress import Notice, Progress

POLL_SECONDS = 0.2  # between two checks of signals, of runs without progress, and of those of other sweeps
# The errors of torch on a GPU, of CUDA and its libraries, of Python, and of torch on a CPU.
OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|CUDA error: out of memory|STATUS_ALLOC_FAILED|MemoryError|can't allocate memory"
)
BUSY = os.EX_TEMPFAIL  # exit code of a process whose run is trained by another sweep
UNKNOWN = 255  # exit code that multiprocessing gives a process whose forkserver was killed

Start = Callable[[Sequence[RunFolder], str | None], tuple[ForkServerProcess, Connection]]


@dataclass
class _Training:
    """A run in a process."""

    folder: RunFolder
    failed_tries: int  # before this one
    evaluated: bool = False  # it has ended an epoch here, and taken all the memory that it needs
    reason: str | None = None  # why its process was killed here, or why it has failed as its process reported
    code: int | None = None  # exit code, once it has ended

    def unrecorded_failure(self) -> str | None:
        """Return why the run failed, if it did and its folder has no reason."""
        assert self.code is not None
        if self.code == 0 or self.folder.result() is not None or self.folder.failed_tries() > self.failed_tries:
            return None
        return self.reason or f"the process {_ended_by(self.code)}"

    def ran_out_of_memory(self) -> bool:
        """Return whether it ended for lack of memory."""
        if self.code == 0 or self.reason or self.folder.result() is not None:
            return False
        return self.code == -signal.SIGKILL or bool(OUT_OF_MEMORY.search(self.folder.failure() or ""))


@dataclass
class _Process:
    """A process and its runs."""

    trainings: list[_Training]
    gpu: str | None
    alone: bool  # no other run may use the GPU, or, without one, the machine
    process: ForkServerProcess
    connection: Connection
    silent: float = 0.0  # seconds without progress
    taken: float = 0.0  # GiB of the GPU's memory so far
    is_over: bool = False  # it has ended, or is about to
    has_died: bool = False  # before its runs, and a line about it was printed

    @property
    def folders(self) -> list[RunFolder]:
        """Of its runs."""
        return [training.folder for training in self.trainings]

    @property
    def under_way(self) -> list[_Training]:
        """Runs that have not ended."""
        return [training for training in self.trainings if training.code is None]

    def messages(self) -> Iterator[tuple[_Training, Progress | Notice | str | int | None]]:
        """Yield what the process has sent about its runs (see `worker.train`); None for those that end with it."""
        try:
            while self.connection.poll():
                number, message = self.connection.recv()
                self.silent = 0.0
                yield self.trainings[number], message
        except (EOFError, OSError):
            self.is_over = True
            self.process.join()
            assert self.process.exitcode is not None
            for training in self.under_way:
                training.code = self.process.exitcode
                yield training, None

    def kill(self, why: str | None = None) -> None:
        """End the process at once; the last checkpoints are on disk."""
        for training in self.under_way:
            training.reason = why
        self.process.kill()
        self.process.join()


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
        more_memory: str = "",
    ) -> None:
        """`start` gives some runs a process on a GPU; `timeout` is in minutes.

        `more_memory` is what the user can do about runs whose processes are killed.

        `request` is one whose block has begun already; without it, Ctrl-C and SIGTERM are handled while runs train.
        """
        self._request = contextlib.nullcontext(request) if request else StopRequest()
        self._slots, self._start, self._timeout = slots, start, timeout
        self._display, self._notify, self._more_memory = display, notify, more_memory
        self._packing = Packing(folders[0].output.path)
        self._waiting = list(folders)
        groups = _groups(folders, slots.count)
        # Number of its group, by run; one that is to have its own process has none.
        self._group = {folder: number for number, group in enumerate(groups) for folder in group}
        if line := shared_line(groups):
            display.say(line)
        self._failed_tries = {folder: folder.failed_tries() for folder in folders}
        self._waiting_alone: dict[str | None, deque[RunFolder]] = defaultdict(deque)  # by GPU
        self._had_no_memory: set[RunFolder] = set()
        self._training: dict[int, _Process] = {}  # by slot
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
            for process in self._training.values():
                process.kill()
                for training in process.under_way:
                    self._notify(training.folder)

    def _is_work_left(self) -> bool:
        return bool(self._waiting) or any(self._waiting_alone.values())

    def _fill_slots(self) -> None:
        for slot in range(self._slots.count):
            if slot not in self._training and not self._no_process:
                gpu = self._slots.gpu(slot)
                neighbours = [process for process in self._training.values() if process.gpu == gpu]
                if any(process.alone for process in neighbours):
                    continue
                if self._waiting_alone[gpu]:
                    if not neighbours:
                        self._begin(slot, [self._waiting_alone[gpu].popleft()], alone=True)
                elif folders := self._next(gpu, neighbours):
                    self._begin(slot, folders, alone=False)

    def _next(self, gpu: str | None, neighbours: Sequence[_Process]) -> list[RunFolder]:
        """Return the first waiting run that no other sweep trains and that fits on the GPU, and those of its group."""
        there = [(self._need(process.folders), process.taken) for process in neighbours] if gpu else []
        free = free_gib(gpu) if gpu and there else 0.0
        for folder in self._waiting.copy():
            together = self._together(folder)
            if there and not fits(self._need(together), free, there):
                continue
            if self._takes(folder):
                return [folder, *(it for it in together if it is not folder and self._takes(it))]
        return []

    def _together(self, folder: RunFolder) -> list[RunFolder]:
        """Return the waiting runs of a run's group."""
        if (group := self._group.get(folder)) is None:
            return [folder]
        return [it for it in self._waiting if self._group.get(it) == group]

    def _need(self, folders: Sequence[RunFolder]) -> float | None:
        """Return the GiB of a GPU that the process of some runs is expected to take: those of the largest."""
        needs = [self._packing.need(folder) for folder in folders]
        return None if None in needs else max(need for need in needs if need is not None)

    def _takes(self, folder: RunFolder) -> bool:
        """Return whether a waiting run is to be started; if so, or if it is over, it waits no more."""
        if folder.state() is RunState.running:
            return False
        self._waiting.remove(folder)
        if folder.result() is None and folder.failed_tries() <= self._failed_tries[folder]:
            return True
        self._notify(folder)
        self._display.ended(folder)
        return False

    def _begin(self, slot: int, folders: Sequence[RunFolder], alone: bool) -> None:
        """Give runs a process, or let them wait until another one ends. Raises UserError if no other run trains."""
        gpu = self._slots.gpu(slot)
        try:
            process, connection = self._start(folders, gpu)
        except UserError as error:
            if not self._training:
                raise
            self._no_process = True
            if alone:
                self._waiting_alone[gpu].extendleft(folders)
            else:
                self._waiting[:0] = folders
            self._display.say(f"{error}; waiting for a run to end")
            return
        for folder in folders:
            self._display.started(folder)
        trainings = [_Training(folder, folder.failed_tries()) for folder in folders]
        self._training[slot] = _Process(trainings, gpu, alone, process, connection)

    def _receive(self) -> None:
        wait([process.connection for process in self._training.values()], POLL_SECONDS)
        passed = self._clock.passed()
        for slot, process in list(self._training.items()):
            for training, message in process.messages():
                self._handle(process, training, message)
            if process.is_over:
                del self._training[slot]
                self._no_process = False
                continue
            process.silent += passed
            if self._timeout is not None and process.silent > 60 * self._timeout:
                process.kill(f"no progress for {self._timeout:g} minutes (hydra.launcher.timeout): killed")

    def _handle(self, process: _Process, training: _Training, message: Progress | Notice | str | int | None) -> None:
        if isinstance(message, Progress):
            self._show(process, training, message)
        elif isinstance(message, Notice):
            self._display.say(f"{training.folder.record().name}: {message.text}")
        elif isinstance(message, str):
            training.reason = message
        else:
            if message is not None:
                training.code = message
            self._end(process, training, by_itself=message is not None)

    def _show(self, process: _Process, training: _Training, progress: Progress) -> None:
        """Pass on the progress of a run."""
        process.taken = progress.gpu_memory_gib or 0.0
        self._display.progress(training.folder, progress)
        if progress.metrics:
            training.evaluated = True
            self._notify(training.folder)
        if training.evaluated and process.gpu:
            self._packing.observe(training.folder, process.taken)

    def _end(self, process: _Process, training: _Training, by_itself: bool) -> None:
        folder = training.folder
        if training.code == BUSY or self._is_unknown(training):
            self._wait_again(folder)
            return
        if self._stopping:
            self._notify(folder)
            self._display.left(folder)
            return
        if not by_itself and len(process.trainings) > 1 and folder.result() is None:
            self._separate(process, training)
            return
        if reason := training.unrecorded_failure():
            is_memory = self._more_memory and not training.reason and training.code == -signal.SIGKILL
            self._fail(folder, f"{reason}; {self._more_memory}" if is_memory else reason)
        self._notify(folder)
        if training.ran_out_of_memory() and folder not in self._had_no_memory:
            self._had_no_memory.add(folder)
            self._waiting_alone[process.gpu].append(folder)
            self._display.left(folder)
            where = "this machine" if process.gpu is None else "its GPU"
            what = "killed, perhaps for lack of memory" if training.code == -signal.SIGKILL else "out of memory"
            self._display.say(f"{folder.record().name}  {what}: tried once more, alone on {where}")
        else:
            self._display.ended(folder)

    def _separate(self, process: _Process, training: _Training) -> None:
        """Let a run whose process died with others continue in its own: so the one that caused it fails alone."""
        assert training.code is not None
        if not process.has_died:
            process.has_died = True
            why = training.reason or f"their process {_ended_by(training.code)}"
            self._display.say(f"{why}; the runs that shared it continue, each in its own process")
        self._group.pop(training.folder, None)
        self._wait_again(training.folder)

    def _wait_again(self, folder: RunFolder) -> None:
        self._display.left(folder)
        self._waiting.append(folder)

    def _is_unknown(self, training: _Training) -> bool:
        """Return, once for each run, whether its exit code is unknown: it is started again, and ends if it was over."""
        folder = training.folder
        if training.code != UNKNOWN or folder.result() is not None or self._stopping or folder in self._unknown:
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
        for process in self._training.values():
            process.process.terminate()
        self._display.say("stopping: every run ends its step and writes a checkpoint; a second signal stops at once")


def _groups(folders: Sequence[RunFolder], slots: int) -> list[list[RunFolder]]:
    """Return the runs of each process."""
    records = [folder.record() for folder in folders]
    groups = grouped([Candidate.of(record.config, record.cost) for record in records], slots)
    return [[folders[index] for index in group] for group in groups]


def _ended_by(code: int) -> str:
    return _killed_by(-code) if code < 0 else f"ended with exit code {code}"


def _killed_by(number: int) -> str:
    name = next((known.name for known in signal.Signals if known == number), "a real-time signal")
    cause = "; the system sends it when memory runs out" if number == signal.SIGKILL else ""
    return f"was killed by signal {number} ({name}{cause})"
