"""The launcher `slurm`: the runs of a sweep as jobs of a SLURM cluster."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from headsweep.config import RunConfig
from headsweep.config.launcher.slurm import Check, Projection, SlurmConfig
from headsweep.errors import ConfigError, UserError
from headsweep.launch.conclude import is_missing
from headsweep.launch.launcher import Launcher, Notify
from headsweep.launch.local.pool import LocalPool, log_models
from headsweep.launch.progress_bars import Display
from headsweep.launch.slurm import sbatch_errors
from headsweep.launch.slurm.asking import groups_of
from headsweep.launch.slurm.grouping import check_needs, configs_of, grouped
from headsweep.launch.slurm.recorded_needs import Configs, described, recorded_needs
from headsweep.launch.slurm.settings import by_settings, record
from headsweep.launch.slurm.submit import sbatch_files
from headsweep.launch.slurm.window import active, lock, refill, submit_some, waiting_line
from headsweep.launch.start_order import by_seed
from headsweep.plan.code_of_runs import code_by_run, current_code, record_code
from headsweep.plan.frozen import check_frozen
from headsweep.plan.past_costs import plain
from headsweep.plan.plan import Plan
from headsweep.plan.run_names import run_names
from headsweep.status import cluster, queue
from headsweep.tracking.cost import RunCost
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.trackers import tracker_of


class SlurmLauncher(Launcher):
    """Hands the missing runs to a cluster, unless they are queued or training already."""

    settings_type = SlurmConfig
    detached = True
    _sweep: Path  # of the plan that was accepted

    def __init__(self, settings: SlurmConfig) -> None:
        self.settings, self.attempts, self.wait = settings, settings.attempts, settings.wait
        self._config: dict[str, str] = {}  # of the cluster

    def prepare(self, runs: Sequence[RunConfig]) -> None:
        """Ask the cluster for its limits. Raises UserError if there is none, or if its jobs could not train `runs`."""
        _check_tracking(runs[0], self.settings)
        _check_output(Path(runs[0].paths.output))
        configs = list(map(plain, runs)) if self.settings.needs else []
        if configs:
            check_needs(self.settings, configs)
        for at, run in enumerate(runs):
            run.check_ranks((self.settings.of_run(configs[at]) if configs else self.settings).ranks)
        if not self.settings.dry_run or shutil.which("scontrol"):
            self._config = cluster.require_config()

    def accept(self, plan: Plan) -> None:
        """Ask sbatch about a job of each kind. Raises UserError if it refuses."""
        self._sweep = plan.folder
        if not self.settings.dry_run:
            _check_groups(plan.folder, plan.folders, self.settings, configs_of(plan, self.settings))

    def check(self, runs: Sequence[RunConfig]) -> list[RunCost | UserError]:
        """Build new runs on the meta device; check=job and a login node without torch leave that to the jobs."""
        if self.settings.check is Check.job or importlib.util.find_spec("torch") is None:
            return [{} for _ in runs]
        return LocalPool().check(runs)

    def forecast(self, plan: Plan) -> list[str]:
        """Return lines about what jobs would ask for by the records of finished runs."""
        missing = [folder for folder in plan.folders if is_missing(folder, self.attempts)]
        return described(recorded_needs(missing, self.settings, configs_of(plan, self.settings)), self.settings)

    def dry_run(self, plan: Plan) -> str | None:
        """Return what sbatch would be given now, and the runs of each job, if it is only to be shown."""
        if not self.settings.dry_run:
            return None
        busy = active(plan.folders)
        names = dict(zip(plan.folders, run_names([planned.run for planned in plan.runs]), strict=True))
        seeds = {planned.folder: planned.run.seed for planned in plan.runs}
        missing = [it for it in plan.folders if it not in busy and is_missing(it, self.attempts)]
        missing.sort(key=seeds.__getitem__)
        limit = cluster.array_limit(self._config)
        parts = [f"# {len(plan.folders) - len(missing)} of {len(plan.folders)} runs need no job now"]
        parts = parts if len(missing) < len(plan.folders) else []
        groups = groups_of(missing, self.settings, configs_of(plan, self.settings))
        arrays = [array for group in groups for array in group.arrays(limit)]
        window = self.settings.max_submitted
        if window is not None and sum(map(len, arrays)) > window:
            parts.append(f"# max_submitted={window}: further jobs are submitted as earlier ones end")
        for file, jobs in zip(sbatch_files(plan.folder, groups, limit), arrays, strict=True):
            runs = [f"# job {at}: {', '.join(names[run] for run in job)}" for at, job in enumerate(jobs)]
            parts.append("\n".join([file, "", *runs]))
        return "\n".join(parts)

    @contextmanager
    def lock(self, sweep: Path) -> Iterator[None]:
        """Keep two commands from submitting the same run; find the jobs of commands that were killed.

        The settings are recorded before the plan: `headsweep retry` trains runs without any on this machine.
        """
        with lock(sweep):
            record(sweep, self.settings)
            yield

    def active(self, plan: Plan) -> set[RunFolder]:
        """Return the runs that are queued, or training on the cluster or elsewhere."""
        return active(plan.folders)

    def start(self, missing: Sequence[RunFolder], display: Display, notify: Notify) -> None:
        """Submit jobs for the runs in `missing`, and print which job has which runs. Raises UserError if it fails."""
        if later := submit_some(self._sweep, missing, self.settings, self._config):
            print(waiting_line(len(later)))

    def refill(self, sweep: Path) -> None:
        """Submit jobs for runs that wait, if there may be more in the queue now."""
        refill(sweep)

    def log_models(self, folders: Sequence[RunFolder], config: RunConfig) -> int:
        """As `Launcher.log_models`, in a process, if there is torch here."""
        return log_models(folders, config)


def submit_again(sweep: Path, folders: Sequence[RunFolder]) -> None:
    """Submit, as the user last submitted the sweep, its runs that are not over and neither queued nor trained now.

    Runs that wait until more jobs may be in the queue keep the settings they wait with, and all use the present code.
    Failures are forgotten. Jobs that SLURM holds after a failed launch are released.

    Raises:
        UserError: there is no cluster, or it refuses; or a run's folder has no configuration to train it by.
    """
    config = cluster.require_config()
    for folder in folders:
        if folder.result() is None:
            check_frozen(folder)
    for settings, runs in by_settings(sweep, folders):
        _check_groups(sweep, runs, settings)
    with lock(sweep):
        for job in queue.release(folders):
            print(f"released job {job}, which SLURM held after a failed launch")
        busy = active(folders)
        missing = [folder for folder in folders if folder.result() is None and folder not in busy]
        for folder in missing:
            folder.forget_failure()
        record_code(code_by_run(missing, current_code(OutputFolder.containing(sweep).path)))
        batches = by_settings(sweep, missing)
        later = [run for settings, runs in batches for run in submit_some(sweep, by_seed(runs), settings, config)]
        left = f"; {len(busy)} still queued, training or ending" if busy else ""
        print(f"{len(missing) - len(later)} of {len(folders)} runs of {sweep.name} are submitted again{left}")
        if later:
            print(waiting_line(len(later)))
    print(f"`headsweep watch {sweep.name}` follows it")


def _check_groups(
    sweep: Path, runs: Sequence[RunFolder], settings: SlurmConfig, configs: Configs | None = None
) -> None:
    """Ask sbatch about one job of each group of runs. Raises UserError if it refuses one."""
    recorded = {run: it.resources for run, it in recorded_needs(runs, settings, configs).items()}
    for group in grouped(runs, settings, configs, recorded):
        one = replace(group, runs=group.chunks()[0])
        sbatch_errors.check(sbatch_files(sweep, [one], limit=1)[0], group.settings)


def _check_output(path: Path) -> None:
    """Raise ConfigError for a folder that sbatch would expand to another one, e.g. %A to the number of an array."""
    if {"%", "\\"} & set(str(path.resolve())):
        raise ConfigError(
            "paths.output", path, "expected a path without % and \\, which sbatch replaces; rename the folder"
        )


def _check_tracking(config: RunConfig, settings: SlurmConfig) -> None:
    if settings.mlflow is Projection.jobs and not tracker_of(config).accepts_many_machines():
        raise ConfigError(
            "hydra.launcher.mlflow",
            "jobs",
            "expected a tracking server, found a sqlite file, which takes no writers on several nodes; give "
            "tracking.uri=http://HOST:PORT, or hydra.launcher.mlflow=login and `headsweep watch` or `headsweep sync`",
        )
