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
from headsweep.launch.slurm import sbatch_errors, snapshot
from headsweep.launch.slurm.job import Job
from headsweep.status import cluster, queue
from headsweep.tracking.run_folder import RunFolder

Chunk = tuple[RunFolder, ...]  # the runs of one job
RETRY_SECONDS = 3  # between two attempts to requeue a job
REFUSALS = 10  # of a controller that answers, after which a job is no longer requeued


def submit(sweep: Path, missing: Sequence[RunFolder], settings: SlurmConfig) -> None:
    """Submit jobs for the missing runs, array by array; print each job's name and its runs.

    Raises:
        UserError: sbatch refuses.
    """
    code = snapshot.home(sweep / "slurm" / "code")
    snapshot.snapshot(code)
    before = None
    for chunks in _arrays(missing, settings, cluster.array_limit()):
        jobs = _submit_array(sweep, chunks, settings, _parameters(sweep, settings, code, before))
        queue.record(sweep, {job: [run.path.name for run in chunk] for job, chunk in zip(jobs, chunks, strict=True)})
        before = jobs[0].partition("_")[0]
        for job, chunk in zip(jobs, chunks, strict=True):
            print(f"job {job}: {', '.join(folder.record().name for folder in chunk)}")


def sbatch_files(sweep: Path, folders: Sequence[RunFolder], settings: SlurmConfig, limit: int) -> list[str]:
    """Return what `submit` gives to sbatch if all the runs are missing, array by array of at most `limit` jobs."""
    code = snapshot.home(sweep / "slurm" / "code")
    command = f"{_python(settings)} -u -m submitit.core._submit {shlex.quote(str(_jobs_folder(sweep)))}"
    return [
        make_sbatch_file(
            command,
            _jobs_folder(sweep),
            map_count=len(chunks) if len(chunks) > 1 else None,
            **_parameters(sweep, settings, code, before=None),
        )
        for chunks in _arrays(folders, settings, limit)
    ]


def _arrays(folders: Sequence[RunFolder], settings: SlurmConfig, limit: int) -> list[list[Chunk]]:
    """Return the runs by job, the jobs by array."""
    size = settings.runs_per_job
    chunks = [tuple(folders[first : first + size]) for first in range(0, len(folders), size)]
    return [chunks[first : first + limit] for first in range(0, len(chunks), limit)]


def _submit_array(
    sweep: Path, chunks: Sequence[Chunk], settings: SlurmConfig, parameters: Mapping[str, Any]
) -> list[str]:
    executor = submitit.SlurmExecutor(_jobs_folder(sweep), python=_python(settings))
    executor.update_parameters(**parameters)
    jobs = [Job(sweep.resolve(), tuple(run.path.resolve() for run in chunk), settings) for chunk in chunks]
    try:
        with cluster.outside_jobs(), redirect_stderr(io.StringIO()):  # submitit prints what it raises
            return [job.job_id for job in executor.map_array(Job.work, jobs)]
    except FailedJobError as error:
        raise sbatch_errors.refused(str(error), settings) from error


def _jobs_folder(sweep: Path) -> Path:
    return (sweep / queue.JOBS).resolve()


def _parameters(sweep: Path, settings: SlurmConfig, code: Path, before: str | None) -> dict[str, Any]:
    """Return the parameters of submitit, by its own and sbatch's names."""
    path = shlex.quote(str(snapshot.search_path(code).resolve()))
    given = {
        "job_name": sweep.name,
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
        "setup": [*settings.setup, f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}"],
        "teardown": _teardown(settings.requeues),
        "srun_args": ["--kill-on-bad-exit=1"],  # a single rank would wait for the others for ever
        "additional_parameters": _options(settings),
    }
    return {name: value for name, value in given.items() if value is not None}


def _teardown(requeues: int) -> list[str]:
    """Return shell lines for the end of a job: if it asks for it (REQUEUE) or was killed, the job is requeued.

    It is not where SIGTERM (143) ended its processes: SLURM sends it to cancel, requeue or preempt a job, and srun
    after failures. A controller that is away or too busy to answer is asked until the job itself is killed, one that
    refuses a few times. One element of an array has the number of the whole array, which alone would mean all of them.
    """
    return [
        "code=$?",
        "job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}",
        f"if [ $code -ge 128 ] && [ $code -ne 143 ] && [ ${{SLURM_RESTART_COUNT:-0}} -lt {requeues} ]; then",
        f"  refusals={REFUSALS}",
        "  while [ $refusals -gt 0 ]; do",
        "    if state=$(squeue --noheader --job $job --format %T); then",
        '      [ "$state" = RUNNING ] || break  # cancelled, or requeued already',
        '      echo "headsweep: ended with exit code $code; to be requeued"',  # before, as it ends this script
        "      scontrol requeue $job && break",
        "      refusals=$((refusals - 1))",
        "    fi",
        f"    sleep {RETRY_SECONDS}",
        "  done",
        "fi",
        "exit $code",
    ]


def _options(settings: SlurmConfig) -> dict[str, Any]:
    """Return options of sbatch that submitit lacks, or changes."""
    requeue = "requeue" if settings.requeues else "no-requeue"
    return {requeue: True, **({"mem": settings.memory} if settings.memory else {}), **settings.extra}


def _python(settings: SlurmConfig) -> str:
    """Return what starts Python in a job: USR2 would end it until it has a handler, after seconds of imports."""
    return f"""sh -c 'trap "" USR2; exec "$0" "$@"' {settings.python or shlex.quote(sys.executable)}"""
