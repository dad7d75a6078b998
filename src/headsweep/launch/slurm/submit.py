"""From missing runs to SLURM jobs: which job works on which runs, and what sbatch is given."""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError
from submitit.slurm.slurm import _make_sbatch_string as make_sbatch_file

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.launch.slurm import job_file, sbatch_errors, snapshot
from headsweep.launch.slurm.grouping import Chunk, Group
from headsweep.launch.slurm.job import Job
from headsweep.launch.slurm.job_file import job_python, jobs_folder
from headsweep.status import cluster, submissions
from headsweep.tracking.run_folder import RunFolder


def submit(
    sweep: Path,
    groups: Sequence[Group],
    code: Path,
    config: Mapping[str, str],
    most: int | None = None,
) -> list[RunFolder]:
    """Submit jobs for missing runs, array by array; print each job's number and its runs.

    Where a limit on the jobs of a user or an account refuses an array, a shorter one is tried.

    Args:
        sweep: the folder that records the jobs.
        groups: the runs, which no job trains.
        code: the copy that they run.
        config: of the cluster.
        most: jobs; None: no limit.

    Returns:
        The runs that have no job: such a limit has refused it, or there would be more than `most`.

    Raises:
        SubmitLimit: it has refused all jobs.
        UserError: sbatch refuses for another reason.
    """
    limit, before = cluster.array_limit(config), None
    jobs = [(group, chunk) for group in groups for chunk in group.chunks()]
    left, later = jobs[:most], jobs[len(jobs[:most]) :]
    while left:
        group = left[0][0]
        array = [chunk for owner, chunk in left[:limit] if owner is group]
        try:
            before = _submit_array(sweep, array, group, code, before, config.get("ClusterName", ""))
        except sbatch_errors.SubmitLimit:
            if len(array) > 1:
                limit = len(array) // 2
                continue
            if before is None:
                raise
            break
        left = left[len(array) :]
    return [run for _, chunk in (*left, *later) for run in chunk]


def sbatch_files(sweep: Path, groups: Sequence[Group], limit: int) -> list[str]:
    """Return what `submit` gives to sbatch for all the runs, array by array of at most `limit` jobs.

    The number of an array, on which the next one depends, is not known before: it is NUMBER_OF_ARRAY_1 for the first.
    """
    code = snapshot.home_of_jobs(sweep)
    files, before = [], None
    arrays = [(group.settings, chunks) for group in groups for chunks in group.arrays(limit)]
    for at, (settings, chunks) in enumerate(arrays, start=1):
        token = submissions.new_token()
        command = (
            f"{job_python(sweep, settings)} -u -m submitit.core._submit {shlex.quote(str(jobs_folder(sweep, token)))}"
        )
        count = len(chunks) if len(chunks) > 1 else None
        given = job_file.parameters(sweep, token, settings, code, before)
        files.append(make_sbatch_file(command, jobs_folder(sweep, token), map_count=count, **given))
        before = f"NUMBER_OF_ARRAY_{at}"
    return files


def _submit_array(
    sweep: Path, chunks: Sequence[Chunk], group: Group, code: Path, before: str | None, cluster_name: str
) -> str:
    """Submit an array of jobs of a group that comes after the array `before`; return its number."""
    token, settings = submissions.new_token(), group.settings
    submissions.begin(
        sweep, token, [[run.path.name for run in chunk] for chunk in chunks], cluster_name, settings.asked
    )
    jobs = _numbers(sweep, token, chunks, settings, job_file.parameters(sweep, token, settings, code, before))
    array = jobs[0].partition("_")[0]
    submissions.complete(sweep, token, array)
    special = f"  ({group.special})" if group.special else ""
    for job, chunk in zip(jobs, chunks, strict=True):
        print(f"job {job}: {', '.join(folder.record().name for folder in chunk)}{special}")
    return array


def _numbers(
    sweep: Path, token: str, chunks: Sequence[Chunk], settings: SlurmConfig, parameters: Mapping[str, Any]
) -> list[str]:
    executor = submitit.SlurmExecutor(jobs_folder(sweep, token), python=job_python(sweep, settings))
    executor.update_parameters(**parameters)
    jobs = [Job(sweep.resolve(), tuple(run.path.resolve() for run in chunk), settings) for chunk in chunks]
    try:
        with cluster.outside_jobs(), redirect_stderr(io.StringIO()):  # submitit prints what it raises
            return [job.job_id for job in executor.map_array(Job.work, jobs)]
    except FailedJobError as error:
        if not sbatch_errors.may_be_submitted(str(error)):
            submissions.forget(sweep, token)
        raise sbatch_errors.refused(str(error), settings) from error
