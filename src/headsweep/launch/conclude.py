"""The end of a sweep: its table, its models in the tracker, and what became of each run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from headsweep import console
from headsweep.config import RunConfig
from headsweep.errors import FailedRunsError, UserError
from headsweep.plan.fingerprint import group
from headsweep.plan.plan import Plan, PlannedRun
from headsweep.report.formats import files, terminal
from headsweep.report.table import published
from headsweep.report.table.build import build
from headsweep.report.table.model import Table
from headsweep.status import queue
from headsweep.text import last_line, plural
from headsweep.tracking.metric_names import TEST_TOP1, VAL_TOP1
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.screening import Screening
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.tracker import Tracker
from headsweep.tracking.trackers import tracker_of

LogModels = Callable[[Sequence[RunFolder], RunConfig], int]  # see `Launcher.log_models`


def compare(sweep: SweepFolder) -> Table:
    """Write the table of a sweep's runs to its folder."""
    sources = published.load(published.FOLDER)
    comparison = build(sweep.runs(), sources=sources, screening=sweep.screening(), design=sweep.design())
    files.write(comparison, sweep.path)
    return comparison


def log_models(folders: Sequence[RunFolder], config: RunConfig, log: LogModels) -> None:
    """Log the models that the tracker of `config` lacks; an error is printed in one line."""
    if not config.tracking.models:
        return
    tracker = tracker_of(config)
    lacking = [folder for folder in folders if tracker.lacks_model(folder)]
    if not lacking:
        return
    store = config.tracking.name.value
    print(f"logging {plural(len(lacking), 'model')} to {store}", file=sys.stderr)  # which takes seconds for each
    try:
        print(f"{plural(log(lacking, config), 'model')} logged to {store}", file=sys.stderr)
    except UserError as error:
        print(f"headsweep: {error}", file=sys.stderr)


def show(sweep: SweepFolder, comparison: Table, tracker: Tracker) -> None:
    """Print the table of a sweep and the places of its files."""
    terminal.show(comparison)
    print(f"table    {sweep.path / 'table.md'} and table.csv")
    print(f"runs     {sweep.output.runs}")
    print(tracker.description())
    if reason := console.lost():  # the exit code is that of the runs, whether their table was printed or not
        print(f"headsweep: standard output: {reason}; the table is {sweep.path / 'table.md'}", file=sys.stderr)


def conclude(sweep: SweepFolder, folders: Sequence[RunFolder], attempts: int | None) -> None:
    """Raise FailedRunsError if some runs of a sweep have not ended well."""
    out = screened_out(sweep, folders)
    left = [folder for folder in folders if folder.result() is None and folder not in out]
    if left:
        unfinished = sum(folder.failure() is None for folder in left)
        advice = _advice(sweep.name, left, attempts)
        raise FailedRunsError(len(folders), _reasons(left), advice, unfinished=unfinished)


def objectives(plan: Plan) -> list[float]:
    """Return what a hyper-parameter search maximizes, for each configuration: top-1 on the images evaluated by epoch.

    For a cell that was screened out it is the score that it was screened by; for a run without a number, 0.
    """
    screening = SweepFolder(plan.folder).screening()
    values = {planned.fingerprint: _objective(planned, screening) for planned in plan.runs}
    return [values[cell] for cell in plan.cells]


def screened_out(sweep: SweepFolder, folders: Sequence[RunFolder]) -> set[RunFolder]:
    """Return the runs that are not trained to their end because other cells were chosen."""
    screening = sweep.screening()
    if screening is None:
        return set()
    return {it for it in folders if it.result() is None and screening.last_round(it.record().group)}


def is_missing(folder: RunFolder, attempts: int | None) -> bool:
    """Return whether a run is not over, and has not failed so often that it is skipped."""
    return folder.result() is None and not has_no_try_left(folder, attempts)


def has_no_try_left(folder: RunFolder, attempts: int | None) -> bool:
    """Return whether a run has failed so often that it is skipped."""
    return attempts is not None and folder.failed_tries() >= attempts


def _objective(planned: PlannedRun, screening: Screening | None) -> float:
    result = planned.folder.result()
    if result is not None:
        return result.metrics.get(VAL_TOP1, result.metrics.get(TEST_TOP1, 0.0))
    cell = group(planned.run)
    last = screening and screening.last_round(cell)
    return (last.scores[cell] or 0.0) if last else 0.0


def _reasons(failed: Sequence[RunFolder]) -> list[str]:
    """Return a row for each run: its name, why it failed, and its log."""
    names = [folder.record().name for folder in failed]
    width = max(map(len, names))
    return [f"{name:{width}}  {_reason(folder)}" for name, folder in zip(names, failed, strict=True)]


def _reason(folder: RunFolder) -> str:
    log = folder.log if folder.log.exists() else queue.printed(folder)
    reason = folder.failure() or ("it was stopped" if folder.log.exists() else "it never began")
    return last_line(reason) + (f"  ({log})" if log else "")


def _advice(sweep: str, failed: Sequence[RunFolder], attempts: int | None) -> str:
    skipped = sum(has_no_try_left(folder, attempts) for folder in failed)
    again = "the same command tries them again"
    if not skipped:
        return again
    retry = f"`headsweep retry {sweep}` tries those again that failed {attempts} times"
    return retry if skipped == len(failed) else f"{again}; {retry}"
