"""The jobs of a sweep in the cluster: which run each trains, and its state.

outputs/sweeps/NAME/slurm/submissions/JOB.json maps the jobs of an array to their runs. The states of runs are in their
folders; those of jobs only complement them.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headsweep.errors import UserError
from headsweep.status import cluster
from headsweep.text import is_file_name
from headsweep.tracking import atomic_files
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged, read_json, require

SETTINGS = "slurm/settings.json"  # of the last submission, in the sweep's folder
JOBS = "slurm/jobs"  # where submitit keeps pickles and what jobs print
UNREACHABLE = "UNREACHABLE"  # state of all jobs while the cluster does not answer; no state of SLURM's
ACTIVE = frozenset(
    {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED", "REQUEUE_HOLD", UNREACHABLE}
)
# Ordinary reasons of pending jobs, which are not shown.
ORDINARY = frozenset({"", "Priority", "Resources", "JobArrayTaskLimit", "Dependency", "BeginTime", "Cleaning"})


@dataclass(frozen=True)
class JobState:
    """The state of a job."""

    job: str  # 12, or 12_3 for element 3 of array 12
    state: str  # SLURM's, e.g. PENDING; or UNREACHABLE; or GONE if the cluster does not know the job
    reason: str = ""  # why it is pending, or how it ended

    @property
    def is_active(self) -> bool:
        """Whether it runs, or will."""
        return self.state in ACTIVE

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.state == "RUNNING"

    def __str__(self) -> str:
        if self.is_running:
            return f"job {self.job} is running"
        if self.state == "COMPLETING":
            return f"job {self.job} is completing"
        if self.is_active:
            waits = f": {self.reason}" if self.reason not in ORDINARY else ""
            return f"job {self.job} is {self.state.lower()}{waits}"
        end = "is unknown to the cluster" if self.state == "GONE" else f"ended: {self.state}"
        reason = f" ({self.reason})" if self.reason else ""
        return f"job {self.job} {end}{reason}; `headsweep retry` submits the run again"


@dataclass(frozen=True)
class _Submission:
    """The content of a file in slurm/submissions."""

    submitted: float  # Unix time
    jobs: dict[str, list[str]]  # job -> fingerprints

    def check(self) -> None:
        """Raise ValueError for an impossible name of a job or a run."""
        for job, runs in self.jobs.items():
            require("jobs", job, re.fullmatch(r"\d+(_\d+)?", job) is not None, "job numbers, e.g. 12 or 12_3")
            require(f"jobs.{job}", runs, all(map(is_file_name, runs)), "names of folders")


def record(sweep: Path, elements: Mapping[str, Sequence[str]]) -> None:
    """Record which job trains which runs, given by their fingerprints."""
    array = next(iter(elements)).partition("_")[0]
    path = _submissions(sweep) / f"{array}.json"
    atomic_files.write_json(
        path, {"submitted": time.time(), "jobs": {job: list(runs) for job, runs in elements.items()}}
    )


def jobs_of(sweep: Path) -> dict[str, str]:
    """Return fingerprint -> the last job that was submitted for the run.

    Raises:
        Damaged: a submission is not as `record` writes it.
    """
    found: dict[str, str] = {}
    for path in sorted(_submissions(sweep).glob("[0-9]*.json"), key=lambda path: (len(path.stem), path.stem)):
        submission = read_json(path, _Submission, "remove it, and its jobs are unknown")
        found |= {run: job for job, runs in (submission.jobs if submission else {}).items() for run in runs}
    return found


def printed(run: RunFolder) -> Path | None:
    """Return the output of the last job that was submitted for the run; None if no job has started."""
    logs: list[Path] = []
    for settings in run.output.sweeps.glob(f"*/{SETTINGS}"):
        sweep = settings.parents[1]
        with contextlib.suppress(Damaged):  # possibly of another sweep; `status` reports it
            logs.append(sweep / JOBS / f"{jobs_of(sweep).get(run.path.name)}_0_log.out")
    return max((log for log in logs if log.exists()), key=lambda log: log.stat().st_mtime, default=None)


def by_sweep(folders: Iterable[RunFolder]) -> dict[Path, list[RunFolder]]:
    """Return the runs that were submitted to a cluster by sweep, the sweep that was submitted last first."""
    left = {folder.path.name: folder for folder in folders}
    sweeps = {folder.output.sweeps for folder in left.values()}
    submitted = [path for folder in sweeps for path in folder.glob(f"*/{SETTINGS}")]
    found: dict[Path, list[RunFolder]] = {}
    for settings in sorted(submitted, key=lambda path: path.stat().st_mtime, reverse=True):
        sweep = settings.parents[1]
        with contextlib.suppress(Damaged):  # of another sweep
            members = [left.pop(run) for run in SweepFolder(sweep).plan()["runs"] if run in left]
            found |= {sweep: members} if members else {}
    return found


def states_of(jobs: Iterable[str]) -> dict[str, JobState]:
    """Return the states of jobs: from the queue, which also has those that have just ended, then from the accounting.

    Without a cluster the result is empty. While a cluster does not answer, all jobs count as active, so that nothing
    is submitted twice.
    """
    asked = set(jobs)
    if not asked or shutil.which("squeue") is None:
        return {}
    command = ("squeue", "--me", "--array", "--noheader", "--states=all", "--format=%A|%F|%K|%T|%r")
    queue = cluster.ask(*command) if cluster.is_up() else None
    if queue is None:
        return {job: JobState(job, UNREACHABLE, "the cluster does not answer") for job in asked}
    found = {state.job: state for state in map(_queued, queue) if state.job in asked}
    arrays = sorted({job.partition("_")[0] for job in asked - found.keys()})
    if arrays:
        found = _ended(arrays, asked) | found
    return found | {job: JobState(job, "GONE") for job in asked - found.keys()}


def active(sweep: Path) -> dict[str, JobState]:
    """Return fingerprint -> the job that trains the run, or will; runs that are over have none."""
    runs = OutputFolder.containing(sweep).runs
    jobs = {run: job for run, job in jobs_of(sweep).items() if RunFolder(runs / run).result() is None}
    states = states_of(jobs.values())
    return {run: states[job] for run, job in jobs.items() if job in states and states[job].is_active}


def cancel(sweep: Path) -> list[str]:
    """Cancel the sweep's jobs, running or pending; return their names.

    Raises:
        UserError: the cluster does not answer.
    """
    states = active(sweep).values()
    jobs = sorted({state.job for state in states})
    if any(state.state == UNREACHABLE for state in states):
        raise UserError(
            f"the cluster does not answer; job {', '.join(jobs)} of {sweep.name} may still run: try again later"
        )
    if jobs and cluster.ask("scancel", *jobs) is None:
        raise UserError(f"scancel of {', '.join(jobs)} failed; `headsweep status {sweep.name}` shows the rest")
    return jobs


def _submissions(sweep: Path) -> Path:
    return sweep / "slurm" / "submissions"


def _queued(line: str) -> JobState:
    job, array, element, state, reason = line.split("|", 4)
    return JobState(job if element == "N/A" else f"{array}_{element}", state, "" if reason == "None" else reason)


def _ended(arrays: Sequence[str], asked: set[str]) -> dict[str, JobState]:
    lines = cluster.ask("sacct", "--noheader", "--allocations", "--parsable2",
                 "--format=JobID,State,ExitCode,NodeList", f"--jobs={','.join(arrays)}")  # fmt: skip
    states = [state for line in lines or () for state in _accounted(line)]
    return {state.job: state for state in states if state.job in asked}


def _accounted(line: str) -> list[JobState]:
    jobs, state, code, nodes = line.split("|", 3)
    name, _, by = state.partition(" ")
    reasons = [by] * bool(by) + [f"exit code {code.partition(':')[0]}"] * (not code.startswith("0:"))
    reasons += [f"signal {code.partition(':')[2]}"] * (not code.endswith(":0"))
    reasons += [f"on {nodes}"] * (nodes != "None assigned")
    return [JobState(job, name, ", ".join(reasons)) for job in _elements(jobs)]


def _elements(jobs: str) -> list[str]:
    """Return the jobs of a line: those that never started share one, e.g. 12_[0,3-5%2]."""
    array, _, rest = jobs.partition("_[")
    spans = re.findall(r"(\d+)(?:-(\d+))?", rest.partition("%")[0])
    return [f"{array}_{at}" for first, last in spans for at in range(int(first), int(last or first) + 1)] or [jobs]
