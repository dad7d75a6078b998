"""Train what is missing of runs that were planned before, from the configurations in their folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headsweep.config import RunConfig
from headsweep.config.study.expansion import local_defaults
from headsweep.errors import UserError
from headsweep.launch.local.launcher import LocalLauncher
from headsweep.launch.run_sweep import run_sweep
from headsweep.plan.frozen import check_frozen
from headsweep.status.find import sweep_folders
from headsweep.status.read import read_run
from headsweep.status.views import RunView
from headsweep.tracking import active_launchers
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.sweep_folder import SweepFolder


def train_again(folders: Sequence[RunFolder], output: Path, slots: int | None, threads: int | None) -> None:
    """Forget how the runs in `folders` failed and train, on this machine, those that are not over.

    Raises:
        UserError: one of them is being trained, or its folder has no configuration to train it by; nothing has changed.
        FailedRunsError: some failed again.
    """
    _check_idle(folders, output)
    runs = [_checked(read_run(folder), output) for folder in folders]
    for folder in folders:
        folder.forget_failure()
    run_sweep(runs, LocalLauncher(replace(local_defaults(), slots=slots, threads=threads)))


def _check_idle(folders: Sequence[RunFolder], output: Path) -> None:
    """Raise UserError if one of the runs is being trained."""
    asked = {folder.path.name for folder in folders}
    for sweep in sweep_folders(output):
        trainers = active_launchers.find(sweep)
        if trainers and asked & {folder.path.name for folder in SweepFolder(sweep).planned()}:
            raise UserError(
                f"{sweep.name} is being trained by {trainers[0]}; wait for it, or `headsweep cancel` it first"
            )


def _checked(view: RunView, output: Path) -> RunConfig:
    """Return the configuration that a run was planned with, in an outputs folder that may have been moved since."""
    if view.state is RunState.running:
        where = f"{view.name} ({view.folder.path.name})"
        raise UserError(f"{where} is being trained; wait for it, or `headsweep cancel` its sweep first")
    run = check_frozen(view.folder)
    return replace(run, paths=replace(run.paths, output=str(output)))
