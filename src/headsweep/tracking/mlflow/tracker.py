"""Carry runs to MLflow beside the training: one thread of the process that launches them, never in their way."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType

from headsweep.credentials import hidden
from headsweep.tracking.mlflow.reconcile import Attachment, Folder, abandoned, project
from headsweep.tracking.mlflow.store import default_uri, opening, prepare, reason

_RETRY_SECONDS = 15.0  # how long a store that failed is left alone


class NullProjector:
    """Tracking is off: hears of runs and does nothing; the metrics log has everything."""

    def __enter__(self) -> NullProjector:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def notify(self, folder: Folder) -> None:
        """Hear that there is news in `folder`."""

    def close(self, timeout: float = 60.0) -> None:
        """Nothing is left to do."""

    def description(self) -> str:
        """There is nothing to open."""
        return ""


class Projector(NullProjector):
    """Projects the runs and sweeps that it is told of into one MLflow experiment, in the background.

    Runs of any command that say RUNNING there, though nobody trains them, are set right at the start.

    A store that is down or broken costs one line on stderr and nothing else; it is tried again every 15 s and once
    more at the end.

    Args:
        uri: address of the store, as MLflow spells it; None is a sqlite store in `output`.
        experiment: name of the experiment.
        output: folder that holds the artifacts of a sqlite store.
    """

    def __init__(self, uri: str | None, experiment: str, output: Path | str) -> None:
        self._output = Path(output)
        self._uri, self._experiment = uri or default_uri(self._output), experiment
        self._inbox: SimpleQueue[Folder | None] = SimpleQueue()
        self._experiment_id: str | None = None
        self._reaped = False
        self._attached: dict[Path, Attachment | None] = {}
        self._warned = threading.Lock()  # taken for good by the one warning
        self._retry_at = 0.0
        self._thread = threading.Thread(target=self._work, name="mlflow-projector", daemon=True)
        self._thread.start()

    def notify(self, folder: Folder) -> None:
        """Hear that there is news in `folder`; returns at once and never raises."""
        self._inbox.put(folder)

    def close(self, timeout: float = 60.0) -> None:
        """Project what is left, waiting at most `timeout` seconds for the store."""
        self._inbox.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._warn(f"is not done after {timeout:g} s")

    def description(self) -> str:
        """Say where the store is and the command that opens it."""
        return opening(self._uri)

    def _work(self) -> None:
        pending: dict[Path, Folder] = {}
        closing = False
        while not closing:
            closing = self._collect(pending)
            if closing or time.monotonic() >= self._retry_at:
                self._project_all(pending)

    def _collect(self, pending: dict[Path, Folder]) -> bool:
        """Wait for news or for the time of a retry, take in all the news there is; True when it is the last."""
        wait = max(0.0, self._retry_at - time.monotonic()) if pending else None
        with contextlib.suppress(Empty):
            news = self._inbox.get(timeout=wait)
            while news is not None:
                pending[news.path] = news
                news = self._inbox.get_nowait()
            return True
        return False

    def _project_all(self, pending: dict[Path, Folder]) -> None:
        waiting = list(pending)
        while waiting:
            try:
                self._experiment_id = self._experiment_id or prepare(self._uri, self._experiment, self._output)
                waiting += self._reap(pending, self._experiment_id)
            except Exception as error:  # nothing that a store does may reach the training
                self._hold_back(error)
                return
            path = waiting.pop(0)
            try:
                self._project(pending[path], self._experiment_id)
                del pending[path]
            except Exception as error:
                self._experiment_id = None  # asked for again: tells a broken run from a broken store
                self._hold_back(error)

    def _reap(self, pending: dict[Path, Folder], experiment_id: str) -> list[Path]:
        """Once, add what earlier commands have left RUNNING."""
        if self._reaped:
            return []
        left = {
            folder.path: folder
            for folder in abandoned(self._uri, experiment_id, self._output)
            if folder.path not in pending
        }
        self._reaped = True
        pending.update(left)
        return list(left)

    def _project(self, folder: Folder, experiment_id: str) -> None:
        attached = self._attached.pop(folder.path, None)
        try:
            self._attached[folder.path] = project(folder, self._uri, experiment_id, attached)
        except Exception:
            if attached is None:
                raise
            # The run may have been deleted in MLflow meanwhile: look again from the start.
            self._attached[folder.path] = project(folder, self._uri, experiment_id)

    def _hold_back(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        self._warn(f"took no metrics ({reason(error, self._uri)})")

    def _warn(self, what: str) -> None:
        if self._warned.acquire(blocking=False):
            text = (
                f"headsweep: MLflow at {hidden(self._uri)} {what}; all metrics are safe in the runs' metrics.jsonl, "
                "and `headsweep sync` replays them, as does the same command\n"
            )
            sys.stderr.write(text)
