"""A study from its configurations to its table: plan, check, freeze, train what is missing, compare."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from headsweep import console
from headsweep.config import RunConfig, TrackingName
from headsweep.errors import ConfigError, FailedRunsError, UserError
from headsweep.launch.halving import Halving
from headsweep.launch.progress_bars import Display
from headsweep.plan.fingerprint import group
from headsweep.plan.plan import Cost, Plan, PlannedRun, checked_costs, code_change, freeze, make_plan
from headsweep.report.formats import files, terminal
from headsweep.report.table import published
from headsweep.report.table.build import build
from headsweep.report.table.model import Table
from headsweep.status import queue
from headsweep.tracking.active_launchers import launching
from headsweep.tracking.mlflow.model import is_lacking
from headsweep.tracking.mlflow.projection import NullProjector, Projector
from headsweep.tracking.mlflow.store import default_uri
from headsweep.tracking.run_folder import RunFolder, RunState
from headsweep.tracking.screening import Screening
from headsweep.tracking.sweep_folder import SweepFolder

Changed = Callable[[RunFolder], None]


class Trainer(Protocol):
    """Where runs are trained."""

    def check(self, runs: Sequence[RunConfig]) -> list[Cost | UserError]:
        """The cost of each run, or why it cannot be built."""

    def train(self, folders: Sequence[RunFolder], display: Display, changed: Changed) -> None:
        """Train the runs in `folders`; a run that fails leaves that in its folder. `changed` hears of new metrics."""

    def log_models(self, folders: Sequence[RunFolder], uri: str) -> int:
        """Give the MLflow runs of `folders` their models; how many were new. Raises UserError if that fails."""


def run_study(
    configs: Sequence[RunConfig],
    trainer: Trainer,
    attempts: int | None = None,
    halving: Callable[[Plan], Halving] | None = None,
) -> Plan:
    """Train what is missing of the runs in `configs`, in `trainer`, and print the table of their sweep.

    The sweep has the runs of all commands for the same cells: the seeds of earlier ones are in the table, too.

    A run that has failed `attempts` times is left alone; without a number it is always tried again. `halving` gives
    what screens the cells of a plan; without it all runs are trained to their end.

    Raises:
        UserError: a run is not valid (nothing has been started then), or the data is absent.
        FailedRunsError: some runs failed; the others have been trained and are in the table.
        Interrupted: someone asked to stop; the runs have written checkpoints.
    """
    if attempts is not None and not (isinstance(attempts, int) and attempts > 0):
        raise ConfigError("hydra.launcher.attempts", attempts, "want a whole number of at least 1, or null")
    plan = make_plan(configs)
    screen = halving and halving(plan)
    sweep = SweepFolder(plan.folder)
    with contextlib.ExitStack() as projection, launching(plan.folder):
        freeze(plan, checked_costs(plan, trainer.check))
        if not screen:
            sweep.forget_screening()
        missing = [folder for folder in plan.folders if folder.result() is None and not is_given_up(folder, attempts)]
        told = projection.enter_context(projector(configs[0]))
        projection.callback(told.notify, sweep)  # however it ends, and once nobody launches it any more
        with Display(len(missing), epoch_lines=len(missing) == 1) as display:
            _announce(plan, told)
            display.say(opening(plan, missing, attempts))
            if change := code_change(missing):
                display.say(change)
            if screen:
                display.say(screen.opening)
            if missing:
                (screen or trainer).train(missing, display, told.notify)
        comparison = compare(sweep)
    log_models(plan.folders, configs[0], trainer.log_models)
    conclude(sweep, plan.folders, comparison, told, attempts)
    return plan


def log_models(folders: Sequence[RunFolder], config: RunConfig, log: Callable[[Sequence[RunFolder], str], int]) -> None:
    """Give MLflow, where `config` says, the models of the runs that have ended; a mistake is no more than a line."""
    if config.tracking.name is TrackingName.none or not config.tracking.models:
        return
    uri = config.tracking.uri or default_uri(Path(config.paths.output))
    lacking = [folder for folder in folders if is_lacking(folder, uri)]
    if not lacking:
        return
    try:
        count = log(lacking, uri)
        print(f"{count} model{'s' * (count != 1)} logged to MLflow", file=sys.stderr)
    except UserError as error:
        print(f"headsweep: {error}", file=sys.stderr)


def compare(sweep: SweepFolder) -> Table:
    """Write the table of a sweep's runs to its folder."""
    comparison = build(sweep.runs(), sources=published.load(published.FOLDER), screening=sweep.screening())
    files.write(comparison, sweep.path)
    return comparison


def objectives(plan: Plan) -> list[float]:
    """What a hyper-parameter search should maximise, for each configuration: top-1 on the images evaluated by epoch.

    For a cell that was screened out it is what it was judged by; for a run without a number, 0.
    """
    screening = SweepFolder(plan.folder).screening()
    values = {planned.fingerprint: _objective(planned, screening) for planned in plan.runs}
    return [values[cell] for cell in plan.cells]


def _objective(planned: PlannedRun, screening: Screening | None) -> float:
    result = planned.folder.result()
    if result is not None:
        return result.metrics.get("val/top1", result.metrics.get("test/top1", 0.0))
    cell = group(planned.run)
    last = screening and screening.last_round(cell)
    return (last.scores[cell] or 0.0) if last else 0.0


def _screened_out(sweep: SweepFolder, folders: Sequence[RunFolder]) -> set[RunFolder]:
    """The runs that are not trained to their end because other cells were chosen."""
    screening = sweep.screening()
    if screening is None:
        return set()
    return {it for it in folders if it.result() is None and screening.last_round(it.record().group)}


def projector(config: RunConfig) -> Projector | NullProjector:
    """What carries a run's metrics to where its configuration says, in the background."""
    if config.tracking.name is TrackingName.none:
        return NullProjector()
    return Projector(config.tracking.uri, config.tracking.experiment, config.paths.output)


def _announce(plan: Plan, told: Projector | NullProjector) -> None:
    """Have it known that the runs are launched."""
    sweep = SweepFolder(plan.folder)
    sweep.launch(plan.folders)
    told.notify(sweep)  # a parent before its children
    for folder in plan.folders:
        told.notify(folder)


def is_given_up(folder: RunFolder, attempts: int | None) -> bool:
    """Has it failed so often that it is left alone?"""
    return attempts is not None and folder.failed_tries() >= attempts


def opening(plan: Plan, missing: Sequence[RunFolder], attempts: int | None, queued: int = 0) -> str:
    """What is done and what is begun now, in a line; `queued` runs wait in a cluster's queue or train there."""
    done = sum(folder.result() is not None for folder in plan.folders)
    out = _screened_out(SweepFolder(plan.folder), plan.folders)
    partial = sum(folder.state() is RunState.partial for folder in missing if folder not in out)
    parts = [f"{done} done already"] * (done > 0) + [f"{partial} to be continued"] * (partial > 0)
    parts += [f"{len(out)} screened out"] * bool(out)
    of = f" of {attempts}" if attempts else ""
    tries = Counter(folder.failed_tries() for folder in missing)
    for failed, count in sorted(tries.items()):
        if failed:
            what = "failed run is" if count == 1 else "failed runs are"
            parts.append(f"{count} {what} tried again (try {failed + 1}{of})")
    parts += [f"{queued} queued or training already"] * (queued > 0)
    given_up = len(plan.runs) - done - len(missing) - queued
    if given_up:
        parts.append(f"{given_up} failed {attempts} times and {'is' if given_up == 1 else 'are'} skipped")
    sweep = len(SweepFolder(plan.folder).runs())
    of_sweep = f" of {sweep}" * (sweep > len(plan.runs))
    opening = f"{len(plan.runs)} run{'s' if len(plan.runs) != 1 else ''}{of_sweep} in {plan.name}"
    return f"{opening}: {', '.join(parts)}" if parts else opening


def conclude(
    sweep: SweepFolder,
    folders: Sequence[RunFolder],
    comparison: Table,
    told: Projector | NullProjector,
    attempts: int | None,
) -> None:
    """Print the table of a sweep and where everything is.

    Raises:
        FailedRunsError: some runs have not ended well.
    """
    terminal.show(comparison)
    print(f"table    {sweep.path / 'table.md'} and table.csv")
    print(f"runs     {sweep.path.parents[1] / 'runs'}")
    print(told.description())
    if reason := console.lost():  # what is printed is a courtesy: the exit code is that of the runs
        print(f"headsweep: standard output: {reason}; the table is {sweep.path / 'table.md'}", file=sys.stderr)
    out = _screened_out(sweep, folders)
    failed = [folder for folder in folders if folder.result() is None and folder not in out]
    if failed:
        raise FailedRunsError(len(folders), _reasons(failed), _advice(sweep.name, failed, attempts))


def _reasons(failed: Sequence[RunFolder]) -> list[str]:
    """A row for each: its name, what happened, and where to read more."""
    names = [folder.record().name for folder in failed]
    width = max(map(len, names))
    return [f"{name:{width}}  {_last_line(folder)}" for name, folder in zip(names, failed, strict=True)]


def _last_line(folder: RunFolder) -> str:
    log = folder.log if folder.log.exists() else queue.printed(folder)
    reason = folder.failure() or ("it was stopped" if folder.log.exists() else "it never began")
    return reason.strip().splitlines()[-1] + (f"  ({log})" if log else "")


def _advice(sweep: str, failed: Sequence[RunFolder], attempts: int | None) -> str:
    given_up = sum(is_given_up(folder, attempts) for folder in failed)
    again = "the same command tries them again"
    if not given_up:
        return again
    retry = f"`headsweep retry {sweep}` tries those again that failed {attempts} times"
    return retry if given_up == len(failed) else f"{again}; {retry}"
