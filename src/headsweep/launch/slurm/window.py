"""As many jobs in the queue as may be there at a time; the others are submitted when earlier ones have ended.

`headsweep watch` does so while it runs, and each job as it starts and ends, for all sweeps of its output folder:
`python -m headsweep.launch.slurm.window SWEEP starting`, `... ending`. A job that is killed cannot; while runs wait, a
standby job waits with them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.errors import UserError
from headsweep.launch.conclude import is_missing
from headsweep.launch.slurm import association, snapshot, standby
from headsweep.launch.slurm.asking import groups_of
from headsweep.launch.slurm.job_file import ENDING, STARTING
from headsweep.launch.slurm.recovery import recover
from headsweep.launch.slurm.sbatch_errors import SubmitLimit
from headsweep.launch.slurm.settings import plain, waiting_with
from headsweep.launch.slurm.submit import submit
from headsweep.plan.code_of_runs import record_code
from headsweep.status import cluster, queue, waiting
from headsweep.status import standby as standby_job
from headsweep.text import plural
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.sharing import share_with_group
from headsweep.tracking.typed_files import Damaged


@contextmanager
def lock(sweep: Path, seconds: float = -1) -> Iterator[None]:
    """Let one command at a time submit jobs for an output folder, whose sweeps may share runs.

    Raises:
        Timeout: another one still does after some seconds, unless these are negative.
    """
    output = OutputFolder.containing(sweep)
    output.path.mkdir(parents=True, exist_ok=True)
    with FileLock(output.submission_lock, timeout=seconds):
        recover(output)
        yield


def active(folders: Sequence[RunFolder]) -> set[RunFolder]:
    """Return the runs that are queued, or training on the cluster or elsewhere."""
    return queue.active(folders) | {folder for folder in folders if folder.state() is RunState.running}


def submit_some(
    sweep: Path,
    missing: Sequence[RunFolder],
    settings: SlurmConfig,
    config: Mapping[str, str],
    ending: str | None = None,
    batch: waiting.Batch | None = None,
) -> Sequence[RunFolder]:
    """Submit jobs for as many of the missing runs as may be in the queue, and record the others; call it under `lock`.

    Args:
        sweep: its folder.
        missing: the runs, which no job trains.
        settings: of the jobs.
        config: of the cluster.
        ending: a job that is about to end, whose place is free.
        batch: the runs have waited in it and keep its code; None: their jobs run the present code, which is recorded.

    Returns:
        The runs that wait.

    Raises:
        UserError: sbatch refuses, or the copy of the code was removed.
    """
    waited, code = waiting.of_this_user(sweep), _code(sweep, batch) or snapshot.copied(sweep)
    versions = batch.versions if batch else _versions(missing)
    _wait(sweep, missing, waiting.Batch(_names(missing), plain(settings), "", code.name, versions))
    groups = groups_of(missing, settings)
    jobs = queue.of_this_user(OutputFolder.containing(sweep)) - {ending}
    # If sbatch refuses, runs that have waited go on waiting, for `watch` to show why or for a command that mends it.
    later: Sequence[RunFolder] = [run for run in missing if run.path.name in waited]
    refused = ""
    try:
        room = _room(sweep, settings, config, len(jobs), sum(len(group.chunks()) for group in groups))
        later = submit(sweep, groups, code, config, room)
    except UserError as error:
        at_limit = isinstance(error, SubmitLimit)
        later = missing if at_limit and (jobs or waited) else later
        if not (at_limit and jobs):  # whose end could make room
            refused = str(error)
            raise
    finally:
        _wait(sweep, missing, waiting.Batch(_names(later), plain(settings), refused, code.name, versions))
    if waited or later:
        _keep_standby(sweep, settings)
    return later


def waiting_line(count: int) -> str:
    """Return a line about as many runs that wait."""
    waits = "run waits" if count == 1 else "runs wait"
    return f"{count} {waits} until more jobs may be in the queue; jobs that end, and `headsweep watch`, submit more"


def refill(sweep: Path, moment: str | None = None) -> None:
    """Submit jobs for runs of this user that wait in any sweep of an output folder, if there may be more now.

    Args:
        sweep: the folder of one of these sweeps.
        moment: STARTING or ENDING, if this process runs in a job that does.

    Raises:
        UserError: the cluster does not answer, or sbatch refuses.
    """
    output = OutputFolder.containing(sweep)
    if not waiting.sweeps_in(output):
        return
    share_with_group(output.path)
    config = cluster.require_config()
    try:
        with lock(sweep, 0 if moment == STARTING else -1):
            errors = [error for one in waiting.sweeps_in(output) for error in _refill(one, config, moment)]
    except Timeout:  # another job submits what waits
        return
    if errors:
        raise errors[0]


def _wait(sweep: Path, missing: Sequence[RunFolder], later: waiting.Batch) -> None:
    """Record that of the missing runs only those of a batch wait, beside all others that do."""
    found = waiting.without(waiting.batches(sweep), set(_names(missing)))
    kind = (later.settings, later.code)
    at = next((at for at, batch in enumerate(found) if (batch.settings, batch.code) == kind), len(found))
    before = found[at] if at < len(found) else waiting.Batch([])
    versions = {run: later.versions[run] for run in later.runs if run in later.versions}
    joined = replace(later, runs=[*before.runs, *later.runs], versions=before.versions | versions)
    waiting.record(sweep, [*found[:at], joined, *found[at + 1 :]])


def _names(runs: Sequence[RunFolder]) -> list[str]:
    return [run.path.name for run in runs]


def _versions(runs: Sequence[RunFolder]) -> dict[str, dict[str, Any]]:
    """Return the version of the code in the records of runs, without runs that other versions have begun."""
    codes = {run.path.name: run.record().code for run in runs}
    return {run: code for run, code in codes.items() if "continued" not in code}


def _refill(sweep: Path, config: Mapping[str, str], moment: str | None) -> list[UserError]:
    """Submit what waits in one sweep, batch by batch; return the errors of those that fail."""
    try:
        found = waiting.batches(sweep)
    except Damaged as error:
        return [error]
    return [failed for batch in found if (failed := _refill_batch(sweep, batch, config, moment))]


def _refill_batch(sweep: Path, batch: waiting.Batch, config: Mapping[str, str], moment: str | None) -> UserError | None:
    """Submit runs of a sweep that wait with the same settings; return the error if that fails."""
    try:
        settings, runs = waiting_with(sweep, batch), OutputFolder.containing(sweep).runs
        _code(sweep, batch)  # raises before anything is recorded
        folders = [RunFolder(runs / run) for run in batch.runs]
        busy = active(folders)
        missing = [folder for folder in folders if is_missing(folder, settings.attempts) and folder not in busy]
        _wait(sweep, folders, replace(batch, runs=_names(missing), settings=plain(settings)))
        # Since then a command of another sweep, with other code, may have planned them, too.
        record_code({run: batch.versions[run.path.name] for run in missing if run.path.name in batch.versions})
        submit_some(sweep, missing, settings, config, cluster.this_job() if moment == ENDING else None, batch)
    except UserError as error:
        return error
    return None


def _code(sweep: Path, batch: waiting.Batch | None) -> Path | None:
    """Return the copy of the code that runs wait with: this process may have other code, e.g. that of another sweep.

    Raises:
        UserError: it was removed.
    """
    if batch is None or not batch.code:
        return None
    code = snapshot.copies(sweep) / batch.code
    if not code.is_dir():
        advice = f"`headsweep retry {sweep.name}` submits them with the current code"
        waiting_runs = plural(len(batch.runs), "waiting run")
        raise UserError(f"{code}: expected the code of {waiting_runs}, found none; {advice}")
    return code


def _room(sweep: Path, settings: SlurmConfig, config: Mapping[str, str], jobs: int, needed: int) -> int | None:
    """Return how many more jobs may be in the queue, the standby job excepted; None: no limit is known.

    Args:
        sweep: the sweep.
        settings: of its jobs.
        config: of the cluster.
        jobs: of this user and the output folder that are in the queue.
        needed: jobs that are to be submitted.
    """
    free = association.room(settings, config)
    # The standby job comes first, or there would be no place for it, but not in place of the only job.
    if free is not None and free < needed and free + jobs > 1:
        has_one = standby_job.pending(OutputFolder.containing(sweep)) is not None
        free -= not has_one and standby.has_one(sweep, settings)
    own = None if settings.max_submitted is None else settings.max_submitted - jobs
    return max(0, min(known)) if (known := [it for it in (free, own) if it is not None]) else None


def _keep_standby(sweep: Path, settings: SlurmConfig) -> None:
    """Let the standby job wait for all jobs that are in the queue; cancel it if no run waits."""
    output = OutputFolder.containing(sweep)
    if not waiting.sweeps_in(output):
        standby_job.cancel(output)
    elif standby.has_one(sweep, settings):
        standby.wait_for(output, (job.partition("_")[0] for job in queue.of_this_user(output)))


if __name__ == "__main__":
    try:
        refill(Path(sys.argv[1]), *sys.argv[2:])
    except UserError as error:
        print(f"headsweep: no more jobs were submitted: {error}", file=sys.stderr)
