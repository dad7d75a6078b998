"""From a plan to SLURM jobs: which runs are missing, which job works on which, and what sbatch is given."""

from __future__ import annotations

import importlib.util
import io
import json
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any

import submitit
from filelock import FileLock
from submitit.core.utils import FailedJobError
from submitit.slurm.slurm import _make_sbatch_string as make_sbatch_file

from headsweep.config import RunConfig
from headsweep.config.slurm import Projection, SlurmConfig, parse_slurm
from headsweep.errors import ConfigError, UserError
from headsweep.launch.follow import follow
from headsweep.launch.local.pool import LocalPool
from headsweep.launch.local.slots import Slots
from headsweep.launch.run_sweep import is_given_up, opening
from headsweep.launch.slurm import sbatch_errors, snapshot
from headsweep.launch.slurm.job import Job
from headsweep.plan.plan import Cost, Plan, checked_costs, freeze, make_plan
from headsweep.run.tracker import tracker_of
from headsweep.status import cluster, queue
from headsweep.tracking import atomic_files
from headsweep.tracking.run_folder import RunFolder, RunState
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged, read_text, require

Chunk = tuple[RunFolder, ...]  # the runs of one job


def submit_study(configs: Sequence[RunConfig], settings: SlurmConfig) -> Plan:
    """Submit what is missing of the runs in `configs` and neither queued nor trained now.

    Raises:
        UserError: a run is not valid, the data is absent, or there is no cluster; nothing has been submitted then.
        FailedRunsError: `settings.wait` is set and some runs failed.
    """
    _check_tracking(configs[0], settings)
    for config in configs:
        config.check_ranks(settings.ranks)
    limit = cluster.array_limit() if not settings.dry_run or shutil.which("scontrol") else cluster.USUAL_LIMIT
    plan = make_plan(configs)
    costs = checked_costs(plan, _check)
    files = _sbatch_files(plan.folder, plan.folders, settings, limit)
    if settings.dry_run:
        print("\n".join(files))
        return plan
    sbatch_errors.check(files[0], settings)
    with _alone(plan.folder):
        freeze(plan, costs)
        sweep = SweepFolder(plan.folder)
        sweep.register(plan.folders)
        sweep.forget_screening()
        queued = queue.active(plan.folder)
        missing = [folder for folder in plan.folders if _is_missing(folder, queued, settings.attempts)]
        print(opening(plan, missing, settings.attempts, len(queued)))
        atomic_files.write_text(_settings(plan.folder), json.dumps(asdict(settings), default=lambda value: value.value))
        _say(_submit(plan.folder, missing, settings))
    if settings.wait or not (missing or queued):
        follow(plan.folder, plan.folders)
    else:
        print(f"`headsweep watch {plan.name}` follows it and feeds MLflow; this terminal may be closed")
    return plan


def submit_again(sweep: Path, folders: Sequence[RunFolder]) -> None:
    """Submit, as the sweep was last submitted, those of its runs that are not over and neither queued nor trained now.

    Their failures are forgotten.

    Raises:
        UserError: there is no cluster, or it refuses.
    """
    settings = _submitted_with(sweep)
    sbatch_errors.check(_sbatch_files(sweep, folders, settings, cluster.array_limit())[0], settings)
    with _alone(sweep):
        queued = queue.active(sweep)
        missing = [folder for folder in folders if _is_missing(folder, queued, None)]
        for folder in missing:
            folder.forget_failure()
        print(f"{len(missing)} of {len(folders)} runs of {sweep.name} are submitted again")
        _say(_submit(sweep, missing, settings))
    print(f"`headsweep watch {sweep.name}` follows it and feeds MLflow")


def _say(jobs: Iterable[tuple[str, Chunk]]) -> None:
    for job, chunk in jobs:
        print(f"job {job}: {', '.join(folder.record().name for folder in chunk)}")


def _submitted_with(sweep: Path) -> SlurmConfig:
    """The settings of the last submission. Raises Damaged where their file is not as it was written."""
    path, fix = _settings(sweep), "the sweep's command writes it again"
    try:
        settings = json.loads(read_text(path, fix) or "")
        require("content", settings, isinstance(settings, dict), "an object")
        return parse_slurm(settings)
    except (ValueError, RecursionError, ConfigError) as error:
        raise Damaged(path, f"expected settings of SLURM, found something else ({error})", fix) from error


def _settings(sweep: Path) -> Path:
    return sweep / queue.SETTINGS


def _check_tracking(config: RunConfig, settings: SlurmConfig) -> None:
    if settings.mlflow is Projection.jobs and not tracker_of(config).accepts_many_machines():
        raise ConfigError(
            "hydra.launcher.mlflow",
            "jobs",
            "a sqlite file does not bear writers on several nodes; want a server (tracking.uri=http://HOST:PORT), or "
            "hydra.launcher.mlflow=login, where runs write metrics logs and `headsweep watch` or `sync` feeds MLflow",
        )


def _check(runs: Sequence[RunConfig]) -> list[Cost | UserError]:
    """Build new runs on the meta device; a login node without torch leaves that to the jobs."""
    if importlib.util.find_spec("torch") is None:
        return [{} for _ in runs]
    return LocalPool(Slots(1, 1, ())).check(runs)


def _is_missing(folder: RunFolder, queued: Mapping[str, queue.JobState], attempts: int | None) -> bool:
    return not (
        folder.result() is not None
        or folder.path.name in queued
        or folder.state() is RunState.running
        or is_given_up(folder, attempts)
    )


@contextmanager
def _alone(sweep: Path) -> Iterator[None]:
    """Two commands at once must not submit a run twice."""
    lock = sweep / "slurm" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        yield


def _submit(sweep: Path, missing: Sequence[RunFolder], settings: SlurmConfig) -> Iterator[tuple[str, Chunk]]:
    """Submit jobs for the missing runs, array by array; each job's name and its runs."""
    code = snapshot.home(sweep / "slurm" / "code")
    snapshot.snapshot(code)
    before = None
    for chunks in _arrays(missing, settings, cluster.array_limit()):
        jobs = _submit_array(sweep, chunks, settings, _parameters(sweep, settings, code, before))
        queue.record(sweep, {job: [run.path.name for run in chunk] for job, chunk in zip(jobs, chunks, strict=True)})
        before = jobs[0].partition("_")[0]
        yield from zip(jobs, chunks, strict=True)


def _arrays(folders: Sequence[RunFolder], settings: SlurmConfig, limit: int) -> list[list[Chunk]]:
    """The runs by job, the jobs by array."""
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
        raise sbatch_errors.explained(str(error), settings) from error


def _jobs_folder(sweep: Path) -> Path:
    return (sweep / queue.JOBS).resolve()


def _parameters(sweep: Path, settings: SlurmConfig, code: Path, before: str | None) -> dict[str, Any]:
    """What submitit is told, by its own and sbatch's names."""
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
        "teardown": _afterwards(settings.requeues),
        "srun_args": ["--kill-on-bad-exit=1"],  # a rank alone would wait for the others for ever
        "additional_parameters": _options(settings),
    }
    return {name: value for name, value in given.items() if value is not None}


def _afterwards(requeues: int) -> list[str]:
    """Shell lines after the job's processes: if one was killed, the job goes back into the queue.

    Not where SIGTERM (143) has ended them: whoever cancels, requeues or preempts a job sends it, or srun on failures.
    One element of an array has the number of the whole array, so its number alone would speak of all of them.
    """
    return [
        "code=$?",
        "job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}",
        f"if [ $code -ge 128 ] && [ $code -ne 143 ] && [ ${{SLURM_RESTART_COUNT:-0}} -lt {requeues} ] &&",
        '    [ "$(squeue --noheader --job $job --format %T)" = RUNNING ]; then',
        '  echo "headsweep: ended with exit code $code; back in the queue"',
        "  scontrol requeue $job",
        "fi",
        "exit $code",
    ]


def _options(settings: SlurmConfig) -> dict[str, Any]:
    """Options of sbatch that submitit has no word for, or changes."""
    requeue = "requeue" if settings.requeues else "no-requeue"
    return {requeue: True, **({"mem": settings.memory} if settings.memory else {}), **settings.extra}


def _sbatch_files(sweep: Path, folders: Sequence[RunFolder], settings: SlurmConfig, limit: int) -> list[str]:
    """What `_submit` gives to sbatch if all the runs are missing, array by array."""
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


def _python(settings: SlurmConfig) -> str:
    """What starts Python in a job. Until it has a handler of its own, after seconds of imports, USR2 would end it."""
    return f"""sh -c 'trap "" USR2; exec "$0" "$@"' {settings.python or shlex.quote(sys.executable)}"""
