"""The jobs of a sweep in the cluster's queue: which are active, and cancelling them.

The states of runs are in their folders; those of jobs only complement them.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from headsweep.errors import UserError
from headsweep.status import accounting, cluster, standby, submissions, waiting
from headsweep.status.job_state import ACTIVE, HIDDEN, UNREACHABLE, JobState
from headsweep.status.submissions import Job
from headsweep.text import plural
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sharing import share_with_group
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged

LONGEST_COMPLETION = 600.0  # seconds after its end in which a node may clean up after a job; SLURM warns after 60
LONGEST_SUBMISSION = 60  # seconds for which a command waits while another one submits jobs
QUEUE = "%A|%F|%K|%T|%e|%N|%M|%j|%r"


def states_of(jobs: Iterable[Job]) -> dict[Job, JobState]:
    """Return the states of jobs: from the queue, which also has those that have just ended, and from the accounting.

    Without a cluster the result is empty. While a cluster does not answer, all jobs count as active, so that nothing
    is submitted twice. A job whose number was never recorded and that the queue does not have was never submitted: it
    is left out.
    """
    asked = list(dict.fromkeys(jobs))
    if not asked or shutil.which("squeue") is None:
        return {}
    config = cluster.config()
    queue = None if config is None else _ask_queue(asked)
    if config is None or queue is None:
        reason = "the cluster does not answer"
        return {job: JobState(job.number or "without a number", UNREACHABLE, reason) for job in asked}
    here = [job for job in asked if job.cluster in ("", config.get("ClusterName", job.cluster))]
    found = _match(here, queue)
    over = [job for job in here if job.array and not (job in found and found[job].is_active)]
    if over:
        ended = _match(over, accounting.ended(sorted({job.array for job in over})))
        # Records of the accounting come late: what the queue no longer has is not active.
        found |= {job: state for job, state in ended.items() if not state.is_active}
    return {job: found.get(job) or _absent(job, config) for job in asked if job.number or job in found}


def _ask_queue(jobs: Sequence[Job]) -> list[JobState] | None:
    """Return the states of all jobs that are named like one of `jobs`; None without an answer.

    Names are asked for, as a query for numbers fails if one is unknown, and one for users misses those of others.
    """
    names = ",".join(sorted({job.name for job in jobs}))
    lines = cluster.ask("squeue", "--array", "--noheader", "--states=all", f"--format={QUEUE}", f"--name={names}")
    return None if lines is None else [_queued(line) for line in lines]


def _match(jobs: Sequence[Job], states: Sequence[JobState]) -> dict[Job, JobState]:
    """Return the state of each job that has one with its name and number, or with its name and element."""
    known = {(state.name, state.job): state for state in states}
    named = {(state.name, "".join(state.job.partition("_")[1:])): state for state in states}
    found = {job: known.get((job.name, job.number)) or named.get((job.name, job.element)) for job in jobs}
    return {job: state for job, state in found.items() if state and (not job.number or state.job == job.number)}


def _absent(job: Job, config: Mapping[str, str]) -> JobState:
    """Return the state of a job that the cluster does not show."""
    here = config.get("ClusterName", "")
    if job.cluster and job.cluster != here:
        return JobState(job.number, "GONE", f"submitted to {job.cluster}, this is {here}")
    if "jobs" in config.get("PrivateData", "").split(",") and job.user not in ("", submissions.this_user()):
        return JobState(job.number, HIDDEN, f"the cluster shows jobs of {job.user} to {job.user} only")
    return JobState(job.number, "GONE")


def _queued(line: str) -> JobState:
    job, array, element, state, end, nodes, elapsed, name, reason = line.split("|", 8)
    number = job if element == "N/A" else f"{array}_{element}"
    cause = [] if reason == "None" else [reason]
    if state == "COMPLETING" and end.isdecimal() and (seconds := time.time() - int(end)) > LONGEST_COMPLETION:
        return JobState(number, "STUCK", f"{nodes} has been cleaning up for {seconds // 60:.0f} minutes", name)
    if state not in ACTIVE and nodes:
        cause.append(f"on {nodes}")
    return JobState(number, state, ", ".join(cause), name, f"on {nodes} for {elapsed}" if nodes else "")


def job_of_run(run: str, states: Mapping[Job, JobState]) -> Job | None:
    """Return the job that trains the run, or will; else the last one that was submitted for it.

    While the cluster does not answer, all its jobs count as active: it is the last one then, too.
    """
    found = [job for job in states if run in job.runs][::-1]
    return next((job for job in found if states[job].is_active), found[0] if found else None)


def active(folders: Sequence[RunFolder]) -> set[RunFolder]:
    """Return those of the runs that a job trains, or will, whichever sweep of their output folder submitted it.

    Raises:
        Damaged: a record of submitted jobs is not as it was written.
    """
    left = [folder for folder in folders if folder.result() is None]
    asked = {folder.path.name for folder in left}
    outputs = {folder.output.path: folder.output for folder in left}.values()
    states = states_of(job for output in outputs for job in submissions.jobs_in(output) if asked.intersection(job.runs))
    queued = {run for job, state in states.items() if state.is_active for run in job.runs}
    return {folder for folder in left if folder.path.name in queued}


def of_this_user(output: OutputFolder) -> set[str]:
    """Return the numbers of the jobs of this user and an output folder that are in the queue. Raises as `active`."""
    over = {path.name for path in output.recorded_runs() if RunFolder(path).result() is not None}
    own = [job for job in submissions.jobs_in(output) if job.user == submissions.this_user()]
    asked = [job for job in own if not over.issuperset(job.runs)]
    return {state.job for state in states_of(asked).values() if state.is_active}


def release(folders: Sequence[RunFolder]) -> list[str]:
    """Let this user's jobs of runs start that SLURM holds after a failed launch; return their numbers.

    Raises:
        UserError: the cluster refuses.
        Damaged: as `active`.
    """
    asked = {folder.path.name for folder in folders if folder.result() is None}
    outputs = {folder.output.path: folder.output for folder in folders}.values()
    jobs = [job for output in outputs for job in submissions.jobs_in(output) if asked.intersection(job.runs)]
    own = [job for job in jobs if job.user in ("", submissions.this_user())]
    held = _held(own)
    released = [job for job in held if cluster.ask("scontrol", "release", job) is not None]
    if len(released) < len(held) and (left := _held(own)):  # a job may have ended meanwhile
        raise UserError(f"scontrol release {','.join(left)} failed; cancel these jobs, then `headsweep retry`")
    return released


def _held(jobs: Iterable[Job]) -> list[str]:
    return sorted({state.job for state in states_of(jobs).values() if state.is_held})


class Cancelled(NamedTuple):
    """What a command has cancelled."""

    jobs: Sequence[str] = ()  # their numbers
    waiting: int = 0  # runs that waited to be submitted

    def __str__(self) -> str:
        jobs = [f"job{'s' * (len(self.jobs) > 1)} {', '.join(self.jobs)}"] if self.jobs else []
        return " and ".join([*jobs, *([f"{plural(self.waiting, 'run')} without a job yet"] if self.waiting else [])])


def cancel(sweep: Path, chosen: set[str] | None = None) -> Cancelled:
    """Cancel the sweep's jobs, running or pending, and forget which runs wait for a job.

    Args:
        sweep: its folder.
        chosen: fingerprints of the runs whose jobs are cancelled; None: all.

    Raises:
        UserError: the cluster does not answer, or refuses; a job also trains runs that are not `chosen`; or another
            command does not stop submitting jobs.
    """
    if not submissions.jobs(sweep) and not waiting.of_this_user(sweep):
        return Cancelled()
    output = OutputFolder.containing(sweep)
    share_with_group(output.path)
    try:
        with FileLock(output.submission_lock, timeout=LONGEST_SUBMISSION):
            return _cancel(sweep, output, chosen)
    except Timeout as error:
        raise UserError(f"another command has been submitting jobs for {LONGEST_SUBMISSION} s; try again") from error


def _cancel(sweep: Path, output: OutputFolder, chosen: set[str] | None) -> Cancelled:
    runs, of_sweep = output.runs, submissions.jobs(sweep)
    over = {run for job in of_sweep for run in job.runs if RunFolder(runs / run).result() is not None}
    left = {job: set(job.runs) - over for job in of_sweep}
    found = states_of(job for job in of_sweep if (left[job] if chosen is None else left[job] & chosen))
    states = {job: state for job, state in found.items() if state.is_active}
    for job, state in states.items():
        if chosen is not None and (beside := left[job] - chosen):
            shown = ", ".join(sorted(RunFolder(runs / run).record().name for run in beside))
            raise UserError(f"job {state.job} also trains {shown}; cancel these too, or the whole sweep")
    names = sorted({state.job for state in states.values()})
    if any(state.state == UNREACHABLE for state in states.values()):
        raise UserError(
            f"the cluster does not answer; job {', '.join(names)} of {sweep.name} may still run: try again later"
        )
    # Before the jobs are cancelled, as jobs that end submit more.
    waited = waiting.of_this_user(sweep)
    kept = [] if chosen is None else waiting.without(waiting.batches(sweep), chosen)
    waiting.record(sweep, kept)
    if waited and not waiting.sweeps_in(output):
        standby.cancel(output)
    if names and cluster.ask("scancel", *names) is None:
        others = {state.job: job.user for job, state in states.items() if job.user not in ("", submissions.this_user())}
        whose = f": jobs of {', '.join(sorted(set(others.values())))}, who alone can cancel them" if others else ""
        refused = ", ".join(sorted(others) or names)
        raise UserError(f"scancel of {refused} failed{whose}; `headsweep status {sweep.name}` shows the rest")
    return Cancelled(names, len(waited) - sum(len(batch.runs) for batch in kept))


def printed(run: RunFolder) -> Path | None:
    """Return the output of the last job that was submitted for the run; None if no job has started."""
    jobs = submissions.jobs_in(run.output, skip_damaged=True)  # `status` reports what is damaged
    logs = [job.log(job.number) for job in jobs if job.number and run.path.name in job.runs]
    return max((log for log in logs if log.exists()), key=lambda log: log.stat().st_mtime, default=None)


def by_sweep(folders: Iterable[RunFolder]) -> dict[Path, list[RunFolder]]:
    """Return the runs that were submitted to a cluster by sweep, the sweep that was submitted last first."""
    left = {folder.path.name: folder for folder in folders}
    sweeps = {folder.output.sweeps for folder in left.values()}
    submitted = [path for folder in sweeps for path in folder.glob(f"*/{submissions.SETTINGS}")]
    found: dict[Path, list[RunFolder]] = {}
    for settings in sorted(submitted, key=lambda path: path.stat().st_mtime, reverse=True):
        sweep = settings.parents[1]
        with contextlib.suppress(Damaged):  # of another sweep
            members = [left.pop(run) for run in SweepFolder(sweep).plan()["runs"] if run in left]
            found |= {sweep: members} if members else {}
    return found
