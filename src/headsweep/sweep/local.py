"""The local launcher's engine: each run its own process, as many at a time as there are slots.

Processes come from a forkserver that has imported everything once: a run starts in a fraction of a second and cannot
take others down with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from multiprocessing.forkserver import ensure_running

from headsweep.config import RunConfig
from headsweep.errors import ConfigError, UserError
from headsweep.sweep.display import Display
from headsweep.sweep.plan import Cost
from headsweep.tracking.run_folder import RunFolder


@dataclass(frozen=True)
class Slots:
    """What the machine gives to runs."""

    count: int  # runs at a time
    threads: int  # CPU threads of each
    gpus: tuple[str, ...]  # identifiers for CUDA_VISIBLE_DEVICES; slot i uses gpus[i % len(gpus)]

    @staticmethod
    def of_this_machine(count: int | None, threads: int | None, runs: int, gpus: tuple[str, ...]) -> Slots:
        """The slots asked for, or one per GPU, or one per core; more than there are `runs` are of no use.

        `runs` is the number planned, finished ones included, so that the same command uses the same threads.

        Raises:
            ConfigError: a number asked for is not a whole number of at least 1.
        """
        for key, given in (("slots", count), ("threads", threads)):
            if given is not None and (not isinstance(given, int) or given < 1):
                raise ConfigError(f"hydra.launcher.{key}", given, "want a whole number of at least 1, or null")
        cores = len(os.sched_getaffinity(0))
        count = min(count or len(gpus) or cores, runs)
        return Slots(count, threads or max(1, cores // count), gpus)

    def gpu(self, slot: int) -> str | None:
        """The GPU of a slot, if there are GPUs."""
        return self.gpus[slot % len(self.gpus)] if self.gpus else None


class LocalPool:
    """Processes on this machine."""

    def __init__(self, slots: Slots) -> None:
        """Start importing at once, in the background."""
        self._slots = slots
        self._context: ForkServerContext = multiprocessing.get_context("forkserver")
        # Hydra too: a new process runs the entry script, which imports it.
        self._context.set_forkserver_preload(["headsweep.sweep.worker", "hydra"])
        # A process inherits that SIGINT is ignored: Ctrl-C is the launcher's alone, while modules are imported too.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        ensure_running()
        signal.signal(signal.SIGINT, before)

    def check(self, runs: Sequence[RunConfig]) -> list[Cost | UserError]:
        """Build every run on the meta device; its cost, or what is wrong with it."""
        process, connection = self._start("check", runs)
        try:
            return connection.recv()
        except EOFError:
            process.join()
            raise UserError(f"checking the models ended with exit code {process.exitcode}, see above") from None
        finally:
            process.kill()  # an interrupted check has nobody to answer to

    def train(self, folders: Sequence[RunFolder], display: Display, changed: Callable[[RunFolder], None]) -> None:
        """Train the runs in `folders`. One that fails, or dies, fails alone; all are stopped by an exception."""
        waiting, free, slots = deque(folders), list(range(self._slots.count))[::-1], self._slots
        workers: dict[int, _Training] = {}  # by slot
        try:
            while waiting or workers:
                while waiting and free:
                    slot, folder = free.pop(), waiting.popleft()
                    display.started(folder)
                    arguments = (folder.path, slots.threads, slots.gpu(slot))
                    workers[slot] = _Training(folder, *self._start("train", *arguments))
                wait([worker.connection for worker in workers.values()])
                for slot, worker in list(workers.items()):
                    if worker.listen(display, changed):
                        continue
                    del workers[slot]
                    free.append(slot)
                    changed(worker.end())
                    display.ended(worker.folder)
        finally:
            for worker in workers.values():
                worker.process.kill()  # the last whole epoch is on disk
                worker.process.join()
                changed(worker.folder)

    def _start(self, task: str, *arguments: object) -> tuple[ForkServerProcess, Connection]:
        ours, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_call, args=(task, *arguments, theirs))
        process.start()
        theirs.close()
        return process, ours


@dataclass
class _Training:
    """A run and its process."""

    folder: RunFolder
    process: ForkServerProcess
    connection: Connection

    def listen(self, display: Display, changed: Callable[[RunFolder], None]) -> bool:
        """Pass on what the process has said; False once it is gone."""
        try:
            while self.connection.poll():
                progress = self.connection.recv()
                display.progress(self.folder, progress)
                if progress.metrics:
                    changed(self.folder)
        except (EOFError, OSError):
            return False
        return True

    def end(self) -> RunFolder:
        """The folder of a process that is gone; one that died without a word leaves its exit code there."""
        self.process.join()
        code = self.process.exitcode
        if code and self.folder.result() is None and self.folder.failure() is None:
            cause = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self.folder.fail(f"the process {cause}")
        return self.folder


def _call(task: str, *arguments: object) -> None:
    """Name a function of the worker module, which only the new process imports: it is heavy."""
    from headsweep.sweep import worker

    getattr(worker, task)(*arguments)
