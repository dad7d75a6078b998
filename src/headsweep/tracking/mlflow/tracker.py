"""Mirror runs to MLflow beside the training: one thread of the process that launches them, which never delays them."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue

from headsweep.credentials import redacted
from headsweep.tracking.mlflow.held_state import HeldState
from headsweep.tracking.mlflow.model import is_lacking, log_models
from headsweep.tracking.mlflow.reconcile import abandoned, reconcile
from headsweep.tracking.mlflow.registry import register
from headsweep.tracking.mlflow.store import default_uri, opening, prepare, reason
from headsweep.tracking.mlflow.tracked_runs import tracked_runs
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.tracker import Export, Folder, TrackedRun, Tracker

_RETRY_SECONDS = 15.0  # between two attempts to reach a store that failed


class MlflowTracker(Tracker):
    """Mirrors runs and sweeps into one MLflow experiment, in a background thread that `with` starts.

    Runs of any command that are RUNNING in MLflow though no process trains them are corrected at the start.

    A store that is down or broken costs one line on stderr and nothing else; it is tried again every 15 s and once
    more at the end.

    Args:
        uri: address of the store in MLflow's spelling; None is a sqlite store in `output`.
        experiment: name of the experiment.
        output: folder that holds the artifacts of a sqlite store.
    """

    def __init__(self, uri: str | None, experiment: str, output: Path) -> None:
        self._output = output
        self._uri, self._experiment = uri or default_uri(output), experiment
        self._inbox: SimpleQueue[Folder | None] = SimpleQueue()
        self._experiment_id: str | None = None
        self._corrected = False
        self._held: dict[Path, HeldState | None] = {}
        self._warned = threading.Lock()  # acquired, and never released, by the one warning
        self._retry_at = 0.0
        self._thread = threading.Thread(target=self._work, name="mlflow-tracker", daemon=True)

    def __enter__(self) -> MlflowTracker:
        self._thread.start()
        return self

    def notify(self, folder: Folder) -> None:
        """Hand `folder` to the thread."""
        self._inbox.put(folder)

    def close(self, timeout: float = 60.0) -> None:
        """End the thread once it has sent what is left."""
        self._inbox.put(None)
        self._thread.join(timeout)
        if self._thread.is_alive():
            self._warn(f"is not done after {timeout:g} s")

    def description(self) -> str:
        """Return the place of the store and the command that opens it."""
        return opening(self._uri)

    def accepts_many_machines(self) -> bool:
        """Return whether the store is no sqlite file, which a network file system would damage."""
        return not self._uri.startswith("sqlite")

    def lacks_model(self, run: RunFolder) -> bool:
        """Return, from the file mlflow.json, whether the MLflow run of a finished run has no model."""
        return is_lacking(run, self._uri)

    def log_models(self, runs: Sequence[RunFolder], export: Export) -> int:
        """Log models as MLflow loads and serves them."""
        return log_models(runs, self._uri, export)

    def register(self, run: RunFolder, name: str, export: Export) -> str:
        """Add the model to MLflow's model registry; the store must have the run."""
        return register(run, self._uri, name, export)

    def query(self, text: str) -> Iterable[TrackedRun]:
        """Return the runs that MLflow's filter `text` matches; one that two output folders have logged comes twice."""
        return tracked_runs(self._uri, self._experiment, text)

    def _work(self) -> None:
        pending: dict[Path, Folder] = {}
        closing = False
        while not closing:
            closing = self._collect(pending)
            if closing or time.monotonic() >= self._retry_at:
                self._reconcile_all(pending)

    def _collect(self, pending: dict[Path, Folder]) -> bool:
        """Wait for a notification or for the time of a retry, and take all there are; return whether it is the end."""
        wait = max(0.0, self._retry_at - time.monotonic()) if pending else None
        with contextlib.suppress(Empty):
            folder = self._inbox.get(timeout=wait)
            while folder is not None:
                pending[folder.path] = folder
                folder = self._inbox.get_nowait()
            return True
        return False

    def _reconcile_all(self, pending: dict[Path, Folder]) -> None:
        waiting = list(pending)
        while waiting:
            try:
                self._experiment_id = self._experiment_id or prepare(self._uri, self._experiment, self._output)
                waiting += self._add_abandoned(pending, self._experiment_id)
            except Exception as error:  # an error of the store must not reach the training
                self._postpone(error)
                return
            path = waiting.pop(0)
            try:
                self._reconcile(pending[path], self._experiment_id)
                del pending[path]
            except Exception as error:
                self._experiment_id = None  # looked up again, which distinguishes a broken run from a broken store
                self._postpone(error)

    def _add_abandoned(self, pending: dict[Path, Folder], experiment_id: str) -> list[Path]:
        """Add, once, the folders whose runs earlier commands have left RUNNING."""
        if self._corrected:
            return []
        left = {
            folder.path: folder
            for folder in abandoned(self._uri, experiment_id, self._output)
            if folder.path not in pending
        }
        self._corrected = True
        pending.update(left)
        return list(left)

    def _reconcile(self, folder: Folder, experiment_id: str) -> None:
        held = self._held.pop(folder.path, None)
        try:
            self._held[folder.path] = reconcile(folder, self._uri, experiment_id, held)
        except Exception:
            if held is None:
                raise
            # The run may have been deleted in MLflow meanwhile: search again.
            self._held[folder.path] = reconcile(folder, self._uri, experiment_id)

    def _postpone(self, error: Exception) -> None:
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        self._warn(f"took no metrics ({reason(error, self._uri)})")

    def _warn(self, problem: str) -> None:
        if self._warned.acquire(blocking=False):
            text = (
                f"headsweep: MLflow at {redacted(self._uri)} {problem}; all metrics are safe in the runs' "
                "metrics.jsonl, and `headsweep sync` replays them, as does the same command\n"
            )
            sys.stderr.write(text)
