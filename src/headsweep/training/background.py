"""Write files in a thread while training goes on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

from headsweep.training.progress import Stopped


class BackgroundWriter:
    """Runs one job at a time in a thread; the error of a job is raised by the next call that finds it.

    As a context manager it ends the thread once its job is done. An error that was not found before is raised then, if
    the block ends without an error or with `Stopped`: a stopped run would lack the checkpoint it claims to have.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "checkpoints")  # started with the first job
        self._job: Future[None] | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Start a job, once the last one is done."""
        self.wait()
        self._job = self._thread.submit(job)

    def check(self) -> None:
        """Raise the error of a job that has failed."""
        if self._job is not None and self._job.done():
            self.wait()

    def wait(self) -> None:
        """Return when the job is done."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None or isinstance(error, Stopped):
            self.wait()
