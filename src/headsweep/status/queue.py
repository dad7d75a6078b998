"""What the cluster says of a sweep's jobs: hints beside what the runs' own folders say.

outputs/sweeps/NAME/slurm/submissions/JOB.json says which element of which array works on which runs.
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
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged, read_json, require

SETTINGS = "slurm/settings.json"  # of the last submission, in the sweep's folder
JOBS = "slurm/jobs"  # where submitit keeps pickles and what jobs print
SILENT = "UNREACHABLE"  # our word for a job of which a cluster that does not answer may know
ACTIVE = frozenset({"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED", "REQUEUE_HOLD", SILENT})
# What pending jobs wait for in good order; any other reason is worth a word.
ORDINARY = frozenset({"", "Priority", "Resources", "JobArrayTaskLimit", "Dependency", "BeginTime", "Cleaning"})


@dataclass(frozen=True)
class JobState:
    """Where a job stands."""

    job: str  # 12, or 12_3 for element 3 of array 12
    state: str  # SLURM's word for it, e.g. PENDING; GONE if the cluster knows nothing of it
    reason: str = ""  # why it is pending, or how it ended

    @property
    def is_active(self) -> bool:
        """Does it run, or will it?"""
        return self.state in ACTIVE

    @property
    def is_running(self) -> bool:
        """Does it run?"""
        return self.state == "RUNNING"

    def __str__(self) -> str:
        if self.is_running:
            return f"job {self.job} is working"
        if self.state == "COMPLETING":
            return f"job {self.job} is ending"
        if self.is_active:
            waits = f": {self.reason}" if self.reason not in ORDINARY else ""
            return f"job {self.job} is {self.state.lower()}{waits}"
        what = "is unknown to the cluster" if self.state == "GONE" else f"ended: {self.state}"
        told = f" ({self.reason})" if self.reason else ""
        return f"job {self.job} {what}{told}; `headsweep retry` submits the run again"


@dataclass(frozen=True)
class _Submission:
    """The content of a file in slurm/submissions."""

    submitted: float  # Unix time
    jobs: dict[str, list[str]]  # job -> fingerprints

    def check(self) -> None:
        """Raise ValueError for what is no job or no run."""
        for job, runs in self.jobs.items():
            require("jobs", job, re.fullmatch(r"\d+(_\d+)?", job) is not None, "numbers of jobs, e.g. 12 or 12_3")
            require(f"jobs.{job}", runs, all(map(is_file_name, runs)), "names of folders")


def record(sweep: Path, elements: Mapping[str, Sequence[str]]) -> None:
    """Write down which job works on which runs, given by their fingerprints."""
    array = next(iter(elements)).partition("_")[0]
    path = _submissions(sweep) / f"{array}.json"
    atomic_files.write_json(
        path, {"submitted": time.time(), "jobs": {job: list(runs) for job, runs in elements.items()}}
    )


def jobs_of(sweep: Path) -> dict[str, str]:
    """Fingerprint -> the job that was last asked to train the run.

    Raises:
        Damaged: a submission is not as `record` writes it.
    """
    found: dict[str, str] = {}
    for path in sorted(_submissions(sweep).glob("[0-9]*.json"), key=lambda path: (len(path.stem), path.stem)):
        submission = read_json(path, _Submission, "remove it, and its jobs are unknown")
        found |= {run: job for job, runs in (submission.jobs if submission else {}).items() for run in runs}
    return found


def printed(run: RunFolder) -> Path | None:
    """What the job printed that was last asked to train the run; None where no cluster has begun one."""
    logs: list[Path] = []
    for settings in run.path.parents[1].glob(f"sweeps/*/{SETTINGS}"):
        sweep = settings.parents[1]
        with contextlib.suppress(Damaged):  # another sweep, maybe: `status` says so
            logs.append(sweep / JOBS / f"{jobs_of(sweep).get(run.path.name)}_0_log.out")
    return max((log for log in logs if log.exists()), key=lambda log: log.stat().st_mtime, default=None)


def by_sweep(folders: Iterable[RunFolder]) -> dict[Path, list[RunFolder]]:
    """Of the runs that a cluster was to train, those of each sweep, the one that was submitted last first."""
    left = {folder.path.name: folder for folder in folders}
    outputs = {folder.path.parents[1] for folder in left.values()}
    submitted = [path for output in outputs for path in output.glob(f"sweeps/*/{SETTINGS}")]
    found: dict[Path, list[RunFolder]] = {}
    for settings in sorted(submitted, key=lambda path: path.stat().st_mtime, reverse=True):
        sweep = settings.parents[1]
        with contextlib.suppress(Damaged):  # of a sweep that was not asked for, or `planned` has said so
            theirs = [left.pop(run) for run in SweepFolder(sweep).plan()["runs"] if run in left]
            found |= {sweep: theirs} if theirs else {}
    return found


def states_of(jobs: Iterable[str]) -> dict[str, JobState]:
    """Ask the cluster about jobs: its queue, which has those that have just ended too, then its accounting.

    Where there is no cluster, nothing is known and nothing is returned. Of one that does not answer, all jobs count as
    active: nothing must be submitted twice.
    """
    wanted = set(jobs)
    if not wanted or shutil.which("squeue") is None:
        return {}
    asked = ("squeue", "--me", "--array", "--noheader", "--states=all", "--format=%A|%F|%K|%T|%r")
    queue = cluster.ask(*asked) if cluster.is_up() else None
    if queue is None:
        return {job: JobState(job, SILENT, "the cluster does not answer") for job in wanted}
    found = {state.job: state for state in map(_queued, queue) if state.job in wanted}
    arrays = sorted({job.partition("_")[0] for job in wanted - found.keys()})
    if arrays:
        found = _ended(arrays, wanted) | found
    return found | {job: JobState(job, "GONE") for job in wanted - found.keys()}


def active(sweep: Path) -> dict[str, JobState]:
    """Fingerprint -> the job that works on the run, which is not over, or will."""
    runs = sweep.parents[1] / "runs"
    jobs = {run: job for run, job in jobs_of(sweep).items() if RunFolder(runs / run).result() is None}
    states = states_of(jobs.values())
    return {run: states[job] for run, job in jobs.items() if job in states and states[job].is_active}


def cancel(sweep: Path) -> list[str]:
    """Take the sweep's jobs out of the queue, running or not; which those were.

    Raises:
        UserError: the cluster does not answer.
    """
    states = active(sweep).values()
    jobs = sorted({state.job for state in states})
    if any(state.state == SILENT for state in states):
        raise UserError(
            f"the cluster does not answer; job {', '.join(jobs)} of {sweep.name} may go on: try again later"
        )
    if jobs and cluster.ask("scancel", *jobs) is None:
        raise UserError(f"scancel of {', '.join(jobs)} failed; `headsweep status {sweep.name}` says what goes on")
    return jobs


def _submissions(sweep: Path) -> Path:
    return sweep / "slurm" / "submissions"


def _queued(line: str) -> JobState:
    job, array, element, state, reason = line.split("|", 4)
    return JobState(job if element == "N/A" else f"{array}_{element}", state, "" if reason == "None" else reason)


def _ended(arrays: Sequence[str], wanted: set[str]) -> dict[str, JobState]:
    lines = cluster.ask("sacct", "--noheader", "--allocations", "--parsable2",
                 "--format=JobID,State,ExitCode,NodeList", f"--jobs={','.join(arrays)}")  # fmt: skip
    states = [state for line in lines or () for state in _accounted(line)]
    return {state.job: state for state in states if state.job in wanted}


def _accounted(line: str) -> list[JobState]:
    jobs, state, code, nodes = line.split("|", 3)
    word, _, by = state.partition(" ")
    told = [by] * bool(by) + [f"exit code {code.partition(':')[0]}"] * (not code.startswith("0:"))
    told += [f"signal {code.partition(':')[2]}"] * (not code.endswith(":0"))
    told += [f"on {nodes}"] * (nodes != "None assigned")
    return [JobState(job, word, ", ".join(told)) for job in _elements(jobs)]


def _elements(jobs: str) -> list[str]:
    """The jobs that never began share a line, e.g. 12_[0,3-5%2]."""
    array, _, rest = jobs.partition("_[")
    spans = re.findall(r"(\d+)(?:-(\d+))?", rest.partition("%")[0])
    return [f"{array}_{at}" for first, last in spans for at in range(int(first), int(last or first) + 1)] or [jobs]
