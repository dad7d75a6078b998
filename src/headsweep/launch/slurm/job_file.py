"""What sbatch is given for a job: its options, and the shell lines around its command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.launch.slurm import container, requeue, snapshot
from headsweep.processes import SAFE_PATH
from headsweep.status import submissions, waiting
from headsweep.tracking.output_folder import OutputFolder

STARTING, ENDING = "starting", "ending"  # when a job refills the queue; see `window`


def jobs_folder(sweep: Path, token: str) -> Path:
    """Return the absolute path of the folder of what the jobs of a submission print."""
    return submissions.logs(sweep.resolve(), token)


def parameters(sweep: Path, token: str, settings: SlurmConfig, code: Path, before: str | None) -> dict[str, Any]:
    """Return the parameters of submitit, by its own and sbatch's names.

    Args:
        sweep: the folder of its sweep.
        token: of its submission.
        settings: of the job.
        code: the copy of the code that it runs.
        before: the array that comes before its own.
    """
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
        # In the background, as it takes seconds.
        "setup": [*setup_lines(settings, code), f"{_refill_if_any_wait(sweep, settings, STARTING)} &"],
        "teardown": requeue.last_lines(
            settings, jobs_folder(sweep, token), _refill_if_any_wait(sweep, settings, ENDING)
        ),
        # A single rank would wait for the others for ever.
        "srun_args": ["--kill-on-bad-exit=1", *container.srun_arguments(settings, _output(sweep))],
        "additional_parameters": _options(settings),
    }
    return {name: value for name, value in given.items() if value is not None}


def setup_lines(settings: SlurmConfig, code: Path) -> list[str]:
    """Return the shell lines before a job's command: those of `setup`, and those that make Python find the code.

    Python must find it there alone: a random.py in the working directory would end the job.
    """
    path = shlex.quote(str(snapshot.search_path(code).resolve()))
    found = f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}}"
    return [*checked(settings.setup), found, f"export {SAFE_PATH}=1"]


def checked(setup: Sequence[str]) -> list[str]:
    """Return shell lines, each followed by one that ends the job if it failed."""
    failed = 'echo "headsweep: hydra.launcher.setup[{}] failed with exit code $code" >&2; exit $code'
    check = "code=$?; [ $code -eq 0 ] || {{ " + failed + "; }}"
    return [line for at, command in enumerate(setup) for line in (command, check.format(at))]


def job_python(sweep: Path, settings: SlurmConfig) -> str:
    """Return what starts Python in a job: USR2 would end it until it has a handler, after seconds of imports."""
    return f"""sh -c 'trap "" USR2; exec "$0" "$@"' {container.python(settings, _output(sweep))}"""


def refill(sweep: Path, settings: SlurmConfig) -> str:
    """Return a shell line that submits jobs for runs of the output folder that wait; see `window`."""
    # Outside of a container, which has no sbatch.
    python = (settings.python if settings.container is None else None) or shlex.quote(sys.executable)
    return f"{python} -m headsweep.launch.slurm.window {shlex.quote(str(sweep.resolve()))}"


def _refill_if_any_wait(sweep: Path, settings: SlurmConfig, moment: str) -> str:
    files = waiting.pattern(OutputFolder.containing(sweep.resolve()))
    return f"! ls {files} >/dev/null 2>&1 || {refill(sweep, settings)} {moment}"


def _options(settings: SlurmConfig) -> dict[str, Any]:
    """Return options of sbatch that submitit lacks, or changes."""
    requeue = "requeue" if settings.requeues else "no-requeue"
    return {requeue: True, **({"mem": settings.memory} if settings.memory else {}), **settings.extra}


def _output(sweep: Path) -> Path:
    return OutputFolder.containing(sweep.resolve()).path
