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

from headsweep.config.slurm import SlurmConfig
from headsweep.launch.slurm import container, requeue, sbatch_errors, snapshot
from headsweep.launch.slurm.job import Job
from headsweep.status import cluster, submissions, waiting
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder

Chunk = tuple[RunFolder, ...]  # the runs of one job


def submit(
    sweep: Path, missing: Sequence[RunFolder], settings: SlurmConfig, config: Mapping[str, str]
) -> list[RunFolder]:
    """Submit jobs for the missing runs, array by array; print each job's number and its runs.

    Where a limit on the jobs of a user or an account refuses an array, a shorter one is tried.

    Args:
        sweep: the folder that records the jobs.
        missing: no job trains them.
        settings: of each job.
        config: of the cluster.

    Returns:
        The runs whose jobs such a limit has refused.

    Raises:
        SubmitLimit: it has refused all jobs.
        UserError: sbatch refuses for another reason.
    """
    code = snapshot.home(sweep / "slurm" / "code")
    snapshot.snapshot(code)
    size = cluster.array_limit(config)
    left, before = [chunk for array in arrays(missing, settings, size) for chunk in array], None
    while left:
        try:
            before = _submit_array(sweep, left[:size], settings, code, before, config.get("ClusterName", ""))
        except sbatch_errors.SubmitLimit:
            if min(size, len(left)) > 1:
                size = min(size, len(left)) // 2
                continue
            if before is None:
                raise
            break
        left = left[size:]
    return [run for chunk in left for run in chunk]


def sbatch_files(sweep: Path, folders: Sequence[RunFolder], settings: SlurmConfig, limit: int) -> list[str]:
    """Return what `submit` gives to sbatch if all the runs are missing, array by array of at most `limit` jobs.

    The number of an array, on which the next one depends, is not known before: it is NUMBER_OF_ARRAY_1 for the first.
    """
    code = snapshot.home(sweep / "slurm" / "code")
    files, before = [], None
    for at, chunks in enumerate(arrays(folders, settings, limit), start=1):
        token = submissions.new_token()
        command = (
            f"{_python(sweep, settings)} -u -m submitit.core._submit {shlex.quote(str(_jobs_folder(sweep, token)))}"
        )
        count = len(chunks) if len(chunks) > 1 else None
        parameters = _parameters(sweep, token, settings, code, before)
        files.append(make_sbatch_file(command, _jobs_folder(sweep, token), map_count=count, **parameters))
        before = f"NUMBER_OF_ARRAY_{at}"
    return files


def arrays(folders: Sequence[RunFolder], settings: SlurmConfig, limit: int) -> list[list[Chunk]]:
    """Return the runs by job, the jobs by array of at most `limit`."""
    size = settings.runs_per_job
    chunks = [tuple(folders[first : first + size]) for first in range(0, len(folders), size)]
    return [chunks[first : first + limit] for first in range(0, len(chunks), limit)]


def _submit_array(
    sweep: Path, chunks: Sequence[Chunk], settings: SlurmConfig, code: Path, before: str | None, cluster_name: str
) -> str:
    """Submit an array of jobs that comes after the array `before`; return its number."""
    token = submissions.new_token()
    submissions.begin(sweep, token, [[run.path.name for run in chunk] for chunk in chunks], cluster_name)
    jobs = _numbers(sweep, token, chunks, settings, _parameters(sweep, token, settings, code, before))
    array = jobs[0].partition("_")[0]
    submissions.complete(sweep, token, array)
    for job, chunk in zip(jobs, chunks, strict=True):
        print(f"job {job}: {', '.join(folder.record().name for folder in chunk)}")
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
