"""The launcher `slurm`: the runs of a sweep as jobs of a SLURM cluster."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock

from headsweep.config import RunConfig
from headsweep.config.launchers import parse_launcher
from headsweep.config.slurm import Projection, SlurmConfig
from headsweep.errors import ConfigError, UserError
from headsweep.launch.launcher import Launcher, Notify
from headsweep.launch.local.pool import LocalPool, log_models
from headsweep.launch.progress_bars import Display
from headsweep.launch.slurm import sbatch_errors
from headsweep.launch.slurm.submit import sbatch_files, submit
from headsweep.launch.start_order import by_seed
from headsweep.plan.plan import Cost, Plan
from headsweep.status import cluster, queue
from headsweep.tracking import atomic_files
from headsweep.tracking.run_folder import RunFolder, RunState
from headsweep.tracking.trackers import tracker_of
from headsweep.tracking.typed_files import Damaged, read_text, require


class SlurmLauncher(Launcher):
    """Hands the missing runs to a cluster, unless they are queued or training already."""

    settings_type = SlurmConfig
    detached = True
    _sweep: Path  # of the plan that was accepted

    def __init__(self, settings: SlurmConfig) -> None:
        self.settings, self.attempts, self.wait = settings, settings.attempts, settings.wait
        self._array_limit = cluster.USUAL_LIMIT

    def prepare(self, runs: Sequence[RunConfig]) -> None:
        """Ask the cluster for its limits. Raises UserError if there is none, or if its jobs could not train `runs`."""
        _check_tracking(runs[0], self.settings)
        for run in runs:
            run.check_ranks(self.settings.ranks)
        if not self.settings.dry_run or shutil.which("scontrol"):
            self._array_limit = cluster.array_limit()

    def accept(self, plan: Plan) -> None:
        """Ask sbatch about the first job. Raises UserError if it refuses."""
        self._sweep = plan.folder
        if not self.settings.dry_run:
            sbatch_errors.check(self._files(plan)[0], self.settings)

    def check(self, runs: Sequence[RunConfig]) -> list[Cost | UserError]:
        """Build new runs on the meta device; a login node without torch leaves that to the jobs."""
        if importlib.util.find_spec("torch") is None:
            return [{} for _ in runs]
        return LocalPool().check(runs)

    def dry_run(self, plan: Plan) -> str | None:
        """Return what sbatch would be given, if it is only to be shown."""
        return "\n".join(self._files(plan)) if self.settings.dry_run else None

    def lock(self, sweep: Path) -> AbstractContextManager[object]:
        """Keep two commands from submitting the same run."""
        return _lock(sweep)

    def active(self, plan: Plan) -> set[RunFolder]:
        """Return the runs that are queued, or training on the cluster or elsewhere."""
        return _active(plan.folder, plan.folders)

    def start(self, missing: Sequence[RunFolder], display: Display, notify: Notify) -> None:
        """Submit jobs for the runs in `missing`, and print which job has which runs. Raises UserError if it fails."""
        settings = json.dumps(asdict(self.settings), default=lambda value: value.value)
        atomic_files.write_text(self._sweep / queue.SETTINGS, settings)
        submit(self._sweep, missing, self.settings)

    def log_models(self, folders: Sequence[RunFolder], config: RunConfig) -> int:
        """As `Launcher.log_models`, in a process, if there is torch here."""
        return log_models(folders, config)

    def _files(self, plan: Plan) -> list[str]:
        return sbatch_files(plan.folder, plan.folders, self.settings, self._array_limit)


def submit_again(sweep: Path, folders: Sequence[RunFolder]) -> None:
    """Submit, as the sweep was last submitted, those of its runs that are not over and neither queued nor trained now.

    Their failures are forgotten.

    Raises:
        UserError: there is no cluster, or it refuses.
    """
    settings = _submitted_with(sweep)
    sbatch_errors.check(sbatch_files(sweep, folders, settings, cluster.array_limit())[0], settings)
    with _lock(sweep):
        active = _active(sweep, folders)
        missing = [folder for folder in folders if folder.result() is None and folder not in active]
        for folder in missing:
            folder.forget_failure()
        print(f"{len(missing)} of {len(folders)} runs of {sweep.name} are submitted again")
        submit(sweep, by_seed(missing), settings)
    print(f"`headsweep watch {sweep.name}` follows it")


def _submitted_with(sweep: Path) -> SlurmConfig:
    """Return the settings of the last submission. Raises Damaged where their file is not as it was written."""
    path, fix = sweep / queue.SETTINGS, "the sweep's command writes it again"
    try:
        settings = json.loads(read_text(path, fix) or "")
        require("content", settings, isinstance(settings, dict), "an object")
        return parse_launcher(SlurmConfig, settings)
    except (ValueError, RecursionError, ConfigError) as error:
        raise Damaged(path, f"expected settings of SLURM, found something else ({error})", fix) from error


def _lock(sweep: Path) -> FileLock:
    lock = sweep / "slurm" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(lock)


def _active(sweep: Path, folders: Sequence[RunFolder]) -> set[RunFolder]:
    queued = queue.active(sweep)
    return {it for it in folders if it.path.name in queued or it.state() is RunState.running}


def _check_tracking(config: RunConfig, settings: SlurmConfig) -> None:
    if settings.mlflow is Projection.jobs and not tracker_of(config).accepts_many_machines():
        raise ConfigError(
            "hydra.launcher.mlflow",
            "jobs",
            "expected a tracking server, found a sqlite file, which takes no writers on several nodes; give "
            "tracking.uri=http://HOST:PORT, or hydra.launcher.mlflow=login and `headsweep watch` or `headsweep sync`",
        )
