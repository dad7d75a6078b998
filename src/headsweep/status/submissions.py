"""What was handed to a cluster, from the records in outputs/sweeps/NAME/slurm/submissions.

A record is written before sbatch is given its jobs, with the name that only these jobs have, and completed with the
number that sbatch answers. A number alone names no job: other clusters use the same ones, and a cluster may start anew.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

from headsweep.status import cluster as slurm
from headsweep.text import is_file_name
from headsweep.tracking import atomic_files
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.typed_files import Damaged, read_json, require

LOGS = "slurm/jobs"  # in a sweep's folder: a folder a submission, with submitit's pickles and what jobs print
RECORDS = "slurm/submissions"
FIX = "remove it, and its jobs are unknown"
SETTINGS = "slurm/settings*.json"  # of the last submission of each user


@dataclass(frozen=True)
class Job:
    """A job that was handed to a cluster."""

    sweep: Path
    token: str  # of its submission; empty: recorded before there were any
    array: str  # the number of its array, or its own; empty: sbatch's answer was never recorded
    element: str  # _3 for element 3 of the array; empty for a single job
    runs: tuple[str, ...]  # fingerprints
    submitted: float  # Unix time
    user: str = ""  # who submitted it; empty, as the cluster: not recorded
    cluster: str = ""
    asked: Mapping[str, int] = field(default_factory=dict, compare=False)  # see `Submission`

    @property
    def number(self) -> str:
        """12, or 12_3 for element 3 of array 12; empty if it was never recorded."""
        return self.array and self.array + self.element

    @property
    def name(self) -> str:
        """Its name in the cluster."""
        return job_name(self.sweep, self.token)

    @property
    def record(self) -> Path:
        """The file in which it records when it ran; see `job_record`."""
        return record_of(self.sweep, self.token, self.number)

    def log(self, number: str) -> Path:
        """Return the file of what it prints."""
        return logs(self.sweep, self.token) / f"{number}_0_log.out"


@dataclass(frozen=True)
class Submission:
    """The content of a record."""

    submitted: float  # Unix time
    jobs: dict[str, list[str]]  # element -> fingerprints; with the array's number in front where there is no token
    array: str = ""
    token: str = ""
    user: str = ""
    cluster: str = ""
    # What each job asked for: time in minutes, nodes; on each node gpus, cpus, memory in MiB; its slots. Keys that are
    # absent were not recorded, or left to the cluster.
    asked: dict[str, int] = field(default_factory=dict)

    def check(self) -> None:
        """Raise ValueError for an impossible name of a job or a run."""
        require("array", self.array, re.fullmatch(r"\d*", self.array) is not None, "a number")
        require("token", self.token, re.fullmatch(r"\w*", self.token) is not None, "letters and digits")
        for job, runs in self.jobs.items():
            pattern, expected = (r"(_\d+)?", "elements") if self.token else (r"\d+(_\d+)?", "job numbers")
            require("jobs", job, re.fullmatch(pattern, job) is not None, f"{expected}, e.g. {job_example(self.token)}")
            require(f"jobs.{job}", runs, all(map(is_file_name, runs)), "names of folders")


def job_example(token: str) -> str:
    """Return how jobs are named in a record."""
    return "_3" if token else "12 or 12_3"


def this_user() -> str:
    """Return the name of the user of this process; the number where the machine has no name for it."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def new_token() -> str:
    """Return a token that distinguishes the jobs of a new submission from all others, on any cluster."""
    return uuid4().hex[:8]


def job_name(sweep: Path, token: str) -> str:
    """Return the name that the jobs of a submission have in the cluster."""
    return f"{sweep.name}.{token}" if token else sweep.name


def logs(sweep: Path, token: str) -> Path:
    """Return the folder of a submission's pickles and of what its jobs print."""
    return sweep / LOGS / token if token else sweep / LOGS


def record_of(sweep: Path, token: str, number: str) -> Path:
    """Return the file in which a job records when it ran."""
    return logs(sweep, token) / f"{number}_ran.json"


def this_record(sweep: Path) -> Path:
    """Return that file for the job of the sweep in which this process runs."""
    name, number = os.environ.get("SLURM_JOB_NAME", ""), slurm.this_job()
    token = name.removeprefix(f"{sweep.name}.") if name.startswith(f"{sweep.name}.") else ""
    return record_of(sweep, token, str(number))


def settings_file(sweep: Path) -> Path:
    """Return the file of the settings with which this user last submitted a sweep."""
    return sweep / "slurm" / f"settings-{this_user()}.json"


def settings_files(sweep: Path) -> list[Path]:
    """Return the settings of all users who submitted a sweep."""
    return list(sweep.glob(SETTINGS))


def begin(
    sweep: Path, token: str, jobs: Sequence[Sequence[str]], cluster: str, asked: Mapping[str, int] | None = None
) -> None:
    """Record which jobs, given by the fingerprints of their runs, are about to be handed to a cluster."""
    elements = {f"_{at}" if len(jobs) > 1 else "": list(runs) for at, runs in enumerate(jobs)}
    _write(sweep, Submission(time.time(), elements, "", token, this_user(), cluster, dict(asked or {})))


def complete(sweep: Path, token: str, array: str) -> None:
    """Record the number that the cluster has given to the jobs of a submission."""
    path = _record(sweep, token)
    if (submission := read_json(path, Submission, FIX)) is not None:
        _write(sweep, replace(submission, array=array))


def forget(sweep: Path, token: str) -> None:
    """Remove the record of jobs that the cluster does not have."""
    _record(sweep, token).unlink(missing_ok=True)


def jobs(sweep: Path) -> list[Job]:
    """Return all jobs that were submitted for a sweep, the last ones last.

    Raises:
        Damaged: a record is not as it was written.
    """
    found: list[Submission] = []
    for path in (sweep / RECORDS).glob("*.json"):
        submission = read_json(path, Submission, FIX)
        found += [submission] if submission else []
    ordered = sorted(found, key=lambda it: it.submitted)
    return [job for submission in ordered for job in _jobs(sweep, submission)]


def jobs_in(output: OutputFolder, skip_damaged: bool = False) -> list[Job]:
    """Return all jobs that were submitted for the sweeps of an output folder, the last ones last.

    Raises:
        Damaged: as `jobs`, unless `skip_damaged`.
    """
    found: list[Job] = []
    for sweep in sorted({record.parents[2] for record in output.sweeps.glob(f"*/{RECORDS}/*.json")}):
        with contextlib.suppress(Damaged) if skip_damaged else contextlib.nullcontext():
            found += jobs(sweep)
    return sorted(found, key=lambda job: job.submitted)


def _jobs(sweep: Path, it: Submission) -> list[Job]:
    if it.token:
        of_record = (it.submitted, it.user, it.cluster, it.asked)
        return [Job(sweep, it.token, it.array, job, tuple(runs), *of_record) for job, runs in it.jobs.items()]
    numbers = [(*job.partition("_"), tuple(runs)) for job, runs in it.jobs.items()]
    return [Job(sweep, "", array, bar + element, runs, it.submitted) for array, bar, element, runs in numbers]


def _write(sweep: Path, it: Submission) -> None:
    atomic_files.write_json(_record(sweep, it.token), vars(it))


def _record(sweep: Path, token: str) -> Path:
    return sweep / RECORDS / f"{token}.json"
