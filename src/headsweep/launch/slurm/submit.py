"""From missing runs to SLURM jobs: which job works on which runs, and what sbatch is given."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError
from submitit.slurm.slurm import _make_sbatch_string as make_sbatch_file

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.launch.slurm import container, requeue, sbatch_errors, snapshot
from headsweep.launch.slurm.grouping import Chunk, Group
from headsweep.launch.slurm.job import Job
from headsweep.status import cluster, submissions, waiting
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder


def submit(
    sweep: Path,
    groups: Sequence[Group],
    config: Mapping[str, str],
    most: int | None = None,
) -> list[RunFolder]:
    """Submit jobs for missing runs, array by array; print each job's number and its runs.

    Where a limit on the jobs of a user or an account refuses an array, a shorter one is tried.

    Args:
        sweep: the folder that records the jobs.
        groups: the runs, which no job trains.
        config: of the cluster.
        most: jobs; None: no limit.

    Returns:
        The runs that have no job: such a limit has refused it, or there would be more than `most`.

    Raises:
        SubmitLimit: it has refused all jobs.
        UserError: sbatch refuses for another reason.
    """
    code = snapshot.home(sweep / "slurm" / "code")
    snapshot.snapshot(code)
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
    code = snapshot.home(sweep / "slurm" / "code")
    files, before = [], None
    arrays = [(group.settings, chunks) for group in groups for chunks in group.arrays(limit)]
    for at, (settings, chunks) in enumerate(arrays, start=1):
        token = submissions.new_token()
        command = (
            f"{_python(sweep, settings)} -u -m submitit.core._submit {shlex.quote(str(_jobs_folder(sweep, token)))}"
        )
        count = len(chunks) if len(chunks) > 1 else None
        parameters = _parameters(sweep, token, settings, code, before)
        files.append(make_sbatch_file(command, _jobs_folder(sweep, token), map_count=count, **parameters))
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
    jobs = _numbers(sweep, token, chunks, settings, _parameters(sweep, token, settings, code, before))
    array = jobs[0].partition("_")[0]
    submissions.complete(sweep, token, array)
    special = f"  ({group.special})" if group.special else ""
    for job, chunk in zip(jobs, chunks, strict=True):
        print(f"job {job}: {', '.join(folder.record().name for folder in chunk)}{special}")
    return array


def _numbers(
    sweep: Path, token: str, chunks: Sequence[Chunk], settings: SlurmConfig, parameters: Mapping[str, Any]
) -> list[str]:
    executor = submitit.SlurmExecutor(_jobs_folder(sweep, token), python=_python(sweep, settings))
    executor.update_parameters(**parameters)
    jobs = [Job(sweep.resolve(), tuple(run.path.resolve() for run in chunk), settings) for chunk in chunks]
    try:
        with cluster.outside_jobs(), redirect_stderr(io.StringIO()):  # submitit prints what it raises
            return [job.job_id for job in executor.map_array(Job.work, jobs)]
    except FailedJobError as error:
        if not sbatch_errors.may_be_submitted(str(error)):
            submissions.forget(sweep, token)
        raise sbatch_errors.refused(str(error), settings) from error


def _jobs_folder(sweep: Path, token: str) -> Path:
    return submissions.logs(sweep.resolve(), token)


def _parameters(sweep: Path, token: str, settings: SlurmConfig, code: Path, before: str | None) -> dict[str, Any]:
    """Return the parameters of submitit, by its own and sbatch's names."""
    path = shlex.quote(str(snapshot.search_path(code).resolve()))
    given = {
        "job_name": submissions.job_name(sweep, token),
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "time": settings.time,
        "nodes": settings.nodes,
        "ntasks_per_node": settings.tasks,
        "gpus_per_node": settings.gpus or None,
        "cpus_per_task": max(1, settings.cpus // settings.tasks),
        "signal_delay_s": settings.warning,
        "stderr_to_stdout": True,
        "array_parallelism": settings.max_parallel,
        # With a bound on jobs at a time, arrays come one after the other.
        "dependency": f"afterany:{before}" if settings.max_parallel and before else None,
        "setup": [*_checked(settings.setup), f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}"],
        "teardown": requeue.last_lines(settings.requeues, _refill(sweep, settings)),
        # A single rank would wait for the others for ever.
        "srun_args": ["--kill-on-bad-exit=1", *container.srun_arguments(settings, _output(sweep))],
        "additional_parameters": _options(settings),
    }
    return {name: value for name, value in given.items() if value is not None}


def _refill(sweep: Path, settings: SlurmConfig) -> str:
    """Return a shell line that submits jobs for runs that wait until more may be in the queue, if there are any."""
    # Outside of a container, which has no sbatch.
    python = (settings.python if settings.container is None else None) or shlex.quote(sys.executable)
    file, folder = (shlex.quote(str(path)) for path in (waiting.file_of(sweep.resolve()), sweep.resolve()))
    return f"[ ! -e {file} ] || {python} -m headsweep.launch.slurm.window {folder}"


def _checked(setup: Sequence[str]) -> list[str]:
    """Return the lines of `setup`, each followed by one that ends the job if it failed."""
    failed = 'echo "headsweep: hydra.launcher.setup[{}] failed with exit code $code" >&2; exit $code'
    check = "code=$?; [ $code -eq 0 ] || {{ " + failed + "; }}"
    return [line for at, command in enumerate(setup) for line in (command, check.format(at))]


def _options(settings: SlurmConfig) -> dict[str, Any]:
    """Return options of sbatch that submitit lacks, or changes."""
    requeue = "requeue" if settings.requeues else "no-requeue"
    return {requeue: True, **({"mem": settings.memory} if settings.memory else {}), **settings.extra}


def _python(sweep: Path, settings: SlurmConfig) -> str:
    """Return what starts Python in a job: USR2 would end it until it has a handler, after seconds of imports."""
    return f"""sh -c 'trap "" USR2; exec "$0" "$@"' {container.python(settings, _output(sweep))}"""


def _output(sweep: Path) -> Path:
    return OutputFolder.containing(sweep.resolve()).path
