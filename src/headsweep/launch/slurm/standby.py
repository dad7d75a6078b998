"""Submit the standby job (see `headsweep.status.standby`), which starts once all other jobs have ended."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from submitit.slurm.slurm import _make_sbatch_string as make_sbatch_file

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.errors import UserError
from headsweep.launch.slurm import job_file, sbatch_errors, snapshot
from headsweep.status import cluster, standby
from headsweep.tracking.output_folder import OutputFolder

MINUTES = 10  # of its time; it takes seconds
PATIENCE = "5minutes"  # until it starts in any case, if the command that submits it is killed before `wait_for`


def has_one(sweep: Path, settings: SlurmConfig) -> bool:
    """Return whether a standby job is pending; without one, submit it. If sbatch refuses, print a line with the reason.

    Args:
        sweep: the folder with the code that it runs.
        settings: of jobs of the sweep; it asks for as little as possible on the same partition.
    """
    output = OutputFolder.containing(sweep)
    if standby.pending(output):
        return True
    try:
        _submit(sweep, _small(settings), standby.name_in(output))
    except UserError as error:
        print(f"no standby job: {error}; if all jobs are killed, `headsweep watch` or `retry` has to go on")
        return False
    return True


def wait_for(output: OutputFolder, arrays: Iterable[str]) -> None:
    """Let the standby job start as soon as all of these jobs have ended."""
    number, found = standby.pending(output), sorted(set(arrays), key=int)
    if number and found:
        dependency = f"dependency=afterany:{':'.join(found)}"
        cluster.ask("scontrol", "update", f"jobid={number}", dependency, "starttime=now")


def _small(settings: SlurmConfig) -> SlurmConfig:
    return replace(
        settings,
        time=MINUTES,
        nodes=1,
        gpus=0,
        cpus=1,
        memory="1GB" if settings.memory else None,
        distributed=False,
        warning=10,
        extra={**settings.extra, "begin": f"now+{PATIENCE}"},
    )


def _submit(sweep: Path, settings: SlurmConfig, name: str) -> None:
    code = snapshot.copied(sweep)
    logs = job_file.jobs_folder(sweep, "standby")
    logs.mkdir(parents=True, exist_ok=True)
    given = job_file.parameters(sweep, "", settings, code, None)
    # In no container, which has no sbatch.
    own = {"job_name": name, "setup": job_file.setup_lines(settings, code), "teardown": None, "srun_args": None}
    file = make_sbatch_file(job_file.refill(sweep, settings), logs, **(given | own))
    try:
        with cluster.outside_jobs():
            done = subprocess.run(
                ["sbatch"], input=file, capture_output=True, text=True, timeout=6 * cluster.ANSWER_SECONDS
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"sbatch: {error}") from error
    if done.returncode != 0:
        raise sbatch_errors.refused(done.stderr, settings)
