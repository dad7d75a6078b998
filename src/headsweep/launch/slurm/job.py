"""What one job does: train its runs, write checkpoints on a signal, and requeue itself.

Signals of a job: USR2 comes some time before its end, by time or by preemption, and asks for a requeue. TERM comes from
`scancel`, `scontrol requeue` or a preemption without notice: its sender decides whether the job is requeued, so it
writes checkpoints and waits for its end. Both may come several times, and reach every process of the job.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from headsweep.config.launcher.slurm import Projection, SlurmConfig
from headsweep.errors import Interrupted
from headsweep.launch.conclude import has_no_try_left
from headsweep.launch.launcher import Notify
from headsweep.launch.local.gpus import visible_gpus
from headsweep.launch.local.pool import LocalPool
from headsweep.launch.local.slots import Slots
from headsweep.launch.progress_bars import Display
from headsweep.launch.signals import StopRequest
from headsweep.launch.slurm.requeue import REQUEUE, ask_for_requeue, forget_kills
from headsweep.plan.frozen import frozen
from headsweep.status import cluster, submissions
from headsweep.status.job_record import mark_out_of_time, recorded
from headsweep.status.job_state import more_memory
from headsweep.tracking.active_launchers import launching
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sharing import share_with_group
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.tracker import NullTracker, Tracker
from headsweep.tracking.trackers import tracker_of

SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
LAST_SECONDS = 600  # how long a job that has got TERM waits to be killed; clusters allow at most minutes
LATE_SECONDS = 90  # SLURM sends a signal up to a minute early, and Python starts after the job

Moment = tuple[str | None, int]


@dataclass(frozen=True)
class Job:
    """One job, or one element of an array of them. Pickled at submission, by its class's name and its fields."""

    sweep: Path
    runs: tuple[Path, ...]
    settings: SlurmConfig

    def work(self) -> None:
        """Train what is missing of the runs. Ends with exit code 1 if some failed."""
        share_with_group(OutputFolder.containing(self.sweep).path)
        folders = [RunFolder(path) for path in self.runs]
        restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if restarts > self.settings.requeues:
            sys.exit(f"headsweep: requeued {restarts} times, hydra.launcher.requeues={self.settings.requeues}")
        if os.environ["SLURM_PROCID"] != "0":
            with StopRequest(SIGNALS, insistent=False) as request:
                self._follow(request)
            return
        record, began = submissions.this_record(self.sweep), time.monotonic()
        with recorded(record), launching(self.sweep, _description()), StopRequest(SIGNALS, insistent=False) as request:
            try:
                with self._tracker(folders[0]) as tracker:
                    tracker.notify(SweepFolder(self.sweep))  # a parent before its children
                    train = self._lead if self.settings.distributed else self._train
                    train(folders, forget_kills(record.parent, folders, tracker.notify), request)
            except Interrupted:
                if self._is_out_of_time(time.monotonic() - began) and restarts >= self.settings.requeues:
                    mark_out_of_time(record)
                _leave(request, restarts, self.settings.requeues, record.parent)
        with self._tracker(folders[0]) as tracker:
            tracker.notify(SweepFolder(self.sweep))  # which may have ended with this job
        failed = [folder.record().name for folder in folders if folder.result() is None]
        if failed:
            sys.exit(f"headsweep: {len(failed)} of {len(folders)} runs failed: {', '.join(failed)}")

    def _is_out_of_time(self, seconds: float) -> bool:
        """Return whether a job that was stopped after some time was stopped because its time ends."""
        return seconds >= 60 * self.settings.time - self.settings.warning - LATE_SECONDS

    def _train(self, folders: Sequence[RunFolder], notify: Notify, request: StopRequest) -> None:
        """Train the runs; one that fails is tried again, unless it fails at the same step with the same error."""
        left = [folder for folder in folders if folder.result() is None]
        more = more_memory(self.settings.asked.get("memory"))
        pool = LocalPool(self.settings.timeout, request, more) if left else None
        while pool and left:
            before = {folder: _moment(folder) for folder in left}
            with Display(len(left), epoch_lines=len(left) == 1) as display:
                pool.train(left, self._slots(), display, notify)
            left = [folder for folder in left if self._is_worth_a_try(folder, before[folder])]

    def _lead(self, folders: Sequence[RunFolder], notify: Notify, request: StopRequest) -> None:
        """Train the runs with all processes of the job."""
        from headsweep.launch.slurm.distributed import lead

        attempts = self.settings.attempts
        left = [folder for folder in folders if folder.result() is None and not has_no_try_left(folder, attempts)]
        lead(left, notify, request, self._threads(self.settings.tasks))

    def _follow(self, request: StopRequest) -> None:
        from headsweep.launch.slurm.distributed import follow

        follow(request, self._threads(self.settings.tasks))

    def _threads(self, processes: int) -> int:
        return self.settings.threads or max(1, self.settings.cpus // processes)

    def _is_worth_a_try(self, folder: RunFolder, before: Moment) -> bool:
        attempts = self.settings.attempts
        has_failed = folder.result() is None and folder.failure() is not None
        return has_failed and (attempts is None or folder.failed_tries() < attempts) and _moment(folder) != before

    def _slots(self) -> Slots:
        gpus = visible_gpus() if self.settings.gpus else ()
        count = min(self.settings.slots or len(gpus) or 1, len(self.runs))
        return Slots(count, self._threads(count), gpus)

    def _tracker(self, folder: RunFolder) -> Tracker:
        return tracker_of(frozen(folder)) if self.settings.mlflow is Projection.jobs else NullTracker()


def _description() -> str:
    """Return how this job is shown to users."""
    return f"job {cluster.this_job()} on {os.environ['SLURMD_NODENAME']}"


def _moment(folder: RunFolder) -> Moment:
    """Return how a run failed, and after how many steps."""
    return folder.failure(), max((entry.step for entry in folder.metrics_log.entries()), default=0)


def _leave(request: StopRequest, restarts: int, most: int, folder: Path) -> NoReturn:
    """After USR2, ask for the requeue of this job and end; after SIGTERM, wait for what its sender does."""
    deadline = time.monotonic() + LAST_SECONDS
    while signal.SIGUSR2 not in request.received and time.monotonic() < deadline:
        time.sleep(0.2)
    if signal.SIGUSR2 not in request.received:
        sys.exit(f"headsweep: stopped by SIGTERM, and the job did not end within {LAST_SECONDS} s")
    if restarts >= most:
        sys.exit(
            f"headsweep: stopped before its end, and requeued {restarts} times already; hydra.launcher.requeues={most} "
            "allows no more. `headsweep retry` goes on from the checkpoints"
        )
    print("headsweep: stopped with checkpoints written", file=sys.stderr, flush=True)
    ask_for_requeue(folder)
    sys.exit(REQUEUE)
