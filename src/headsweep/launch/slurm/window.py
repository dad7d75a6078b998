"""As many jobs in the queue as may be there at a time; the others are submitted when earlier ones have ended.

`headsweep watch` does so while it runs, and each job at its end: `python -m headsweep.launch.slurm.window SWEEP`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.errors import UserError
from headsweep.launch.conclude import is_missing
from headsweep.launch.slurm.more_time import with_more_time
from headsweep.launch.slurm.recovery import recover
from headsweep.launch.slurm.sbatch_errors import SubmitLimit
from headsweep.launch.slurm.settings import submitted_with
from headsweep.launch.slurm.submit import submit
from headsweep.status import cluster, queue, submissions, waiting
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.sharing import share_with_group


@contextmanager
def lock(sweep: Path) -> Iterator[None]:
    """Let one command at a time submit jobs for an output folder, whose sweeps may share runs."""
    output = OutputFolder.containing(sweep)
    output.path.mkdir(parents=True, exist_ok=True)
    with FileLock(output.submission_lock):
        recover(output)
        yield


def active(folders: Sequence[RunFolder]) -> set[RunFolder]:
    """Return the runs that are queued, or training on the cluster or elsewhere."""
    return queue.active(folders) | {folder for folder in folders if folder.state() is RunState.running}


def submit_some(sweep: Path, missing: Sequence[RunFolder], settings: SlurmConfig, config: Mapping[str, str]) -> None:
    """Submit jobs for as many of the missing runs as may be in the queue, and record the others; call it under `lock`.

    Raises:
        UserError: sbatch refuses.
    """
    jobs = _jobs_of_this_user(sweep)
    room = None if settings.max_submitted is None else max(0, settings.max_submitted - jobs)
    names = {run.path.name for run in missing}
    others = [run for run in waiting.of_this_user(sweep) if run not in names]
    waiting.record(sweep, [*others, *(run.path.name for run in missing)])
    later: Sequence[RunFolder] = ()
    try:
        later = submit(sweep, with_more_time(missing, settings), config, room)
    except SubmitLimit:
        if not jobs:  # whose end could make room
            raise
        later = missing
    finally:
        waiting.record(sweep, [*others, *(run.path.name for run in later)])
    if later:
        print(
            f"{len(later)} run{'s wait' if len(later) > 1 else ' waits'} until more jobs may be in the queue; "
            "jobs that end, and `headsweep watch`, submit more"
        )


def refill(sweep: Path) -> None:
    """Submit jobs for runs that wait, if there may be more in the queue now.

    Raises:
        UserError: the cluster does not answer, or sbatch refuses.
    """
    if not waiting.of_this_user(sweep):
        return
    share_with_group(OutputFolder.containing(sweep).path)
    settings, config = submitted_with(sweep), cluster.require_config()
    with lock(sweep):
        runs = OutputFolder.containing(sweep).runs
        folders = [RunFolder(runs / run) for run in waiting.of_this_user(sweep)]
        busy = active(folders)
        missing = [folder for folder in folders if is_missing(folder, settings.attempts) and folder not in busy]
        waiting.record(sweep, [folder.path.name for folder in missing])
        submit_some(sweep, missing, settings, config)


def _jobs_of_this_user(sweep: Path) -> int:
    """Return how many jobs of the output folder are in the queue, without the one in which this process runs."""
    output, user = OutputFolder.containing(sweep), submissions.this_user()
    over = {path.name for path in output.recorded_runs() if RunFolder(path).result() is not None}
    asked = [job for job in submissions.jobs_in(output) if job.user == user and not over.issuperset(job.runs)]
    states = queue.states_of(asked).values()
    return len({state.job for state in states if state.is_active} - {cluster.this_job()})


if __name__ == "__main__":
    try:
        refill(Path(sys.argv[1]))
    except UserError as error:
        print(f"headsweep: no more jobs were submitted: {error}", file=sys.stderr)
