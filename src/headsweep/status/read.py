"""Read the progress of runs and sweeps from files, while other processes write them.

Nothing here imports what is heavy, writes, or delays a run: a thousand runs are read in a fraction of a second. Runs
whose files cannot be read are shown as damaged.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headsweep.errors import UserError
from headsweep.status import cluster, job_record, queue, standby, submissions, waiting
from headsweep.status.job_state import NO_OUTPUT, UNREACHABLE, JobState, more_memory
from headsweep.status.submissions import Job
from headsweep.status.views import RunView, SweepView
from headsweep.text import last_line, plural
from headsweep.tracking import active_launchers
from headsweep.tracking.metrics_log import MOST, Entry
from headsweep.tracking.output_folder import SWEEP_PLAN, OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.screening import Screening
from headsweep.tracking.sweep_folder import SweepFolder, sweeps_of
from headsweep.tracking.typed_files import Damaged


def read_run(folder: RunFolder) -> RunView:
    """Return the progress of a run."""
    try:
        return _read_run(folder)
    except Damaged as error:
        return RunView(folder, folder.path.name, note=str(error))


def read_sweep(path: Path) -> SweepView:
    """Return the progress of the sweep in folder `path` and of its runs."""
    return read_sweeps([path])[0]


def read_sweeps(paths: Sequence[Path]) -> list[SweepView]:
    """As `read_sweep`, for several sweeps; the cluster, which may take seconds to answer, is queried for all."""
    views = [_with_note(view) for view in map(_read_sweep, paths)]
    asked = {run.folder.path.name for view in views for run in view.runs if _may_have_job(run)}
    outputs = {path.parents[1]: OutputFolder.containing(path) for path in paths}.values()
    jobs = [job for output in outputs for job in submissions.jobs_in(output, skip_damaged=True)]
    states = queue.states_of(job for job in jobs if asked.intersection(job.runs))
    have_job = {(job.sweep.parent, run) for job in jobs for run in job.runs}
    submitted = {job.sweep for job in jobs}
    views = [_unsubmitted(view, have_job) if view.path in submitted else view for view in views]
    answers = all(state.state != UNREACHABLE for state in states.values())
    left = {output.sweeps for output in outputs if answers and _is_left_waiting(output)}
    return [_with_jobs(view, states, view.path.parent in left) for view in views]


def _read_sweep(path: Path) -> SweepView:
    try:
        folders, screening = SweepFolder(path).planned(), SweepFolder(path).screening()
    except Damaged as error:
        return SweepView(path, (), last_change(path, ()), str(error))
    runs = [_screened(read_run(folder), screening) for folder in folders]
    return SweepView(path, runs, last_change(path, folders))


def _may_have_job(run: RunView) -> bool:
    """Return whether the run is not over."""
    return run.state in (RunState.new, RunState.partial, RunState.running)


def _with_note(sweep: SweepView) -> SweepView:
    """Return the sweep, with a note if the record of its jobs is damaged."""
    try:
        submissions.jobs(sweep.path)
        waiting.refusals(sweep.path)
    except Damaged as error:
        return replace(sweep, note=str(error))
    return sweep


def _is_left_waiting(output: OutputFolder) -> bool:
    """Return whether runs of this user wait, and no job is left that would submit them, e.g. after `scancel --me`."""
    with contextlib.suppress(Damaged):  # then the sweep has a note
        waits = waiting.sweeps_in(output) and cluster.is_up()
        return bool(waits) and not standby.is_active(output) and not queue.of_this_user(output)
    return False


def _with_jobs(sweep: SweepView, states: Mapping[Job, JobState], is_left_waiting: bool) -> SweepView:
    """Return the sweep with the states of its jobs in the cluster."""
    with contextlib.suppress(Damaged):  # then the sweep has a note
        refusals = waiting.refusals(sweep.path)
        waits = {run: f"; the last attempt to submit it failed: {it}" * bool(it) for run, it in refusals.items()}
        if is_left_waiting:
            none = (
                f", but no job is left that submits it; `headsweep retry {sweep.path.name}` or `headsweep watch` does"
            )
            waits |= {run: waits[run] or none for run in waiting.of_this_user(sweep.path)}
        runs = [
            _with_job(run, states, waits.get(run.folder.path.name)) if _may_have_job(run) else run for run in sweep.runs
        ]
        return replace(sweep, runs=runs)
    return sweep


def _unsubmitted(sweep: SweepView, have_job: Collection[tuple[Path, str]]) -> SweepView:
    """Return a sweep that was submitted to a cluster, with a note at the runs that never were.

    Args:
        sweep: the sweep.
        have_job: the folder of its sweep, and fingerprint, of each run for which a job was submitted.
    """
    if _may_be_trained_here(sweep.path):
        return sweep
    note = f"has no job; `headsweep retry {sweep.name}` submits it"
    runs = [
        replace(run, note=note)
        if run.state in (RunState.new, RunState.partial) and (sweep.path.parent, run.folder.path.name) not in have_job
        else run
        for run in sweep.runs
    ]
    return replace(sweep, runs=runs)


def _may_be_trained_here(sweep: Path) -> bool:
    try:
        return bool(active_launchers.find(sweep))
    except Damaged:  # which the view of this sweep alone reports
        return True


def _with_job(run: RunView, states: Mapping[Job, JobState], waits: str | None) -> RunView:
    """Return a run with the state of its job; `waits` is added to its note if it waits, None if it does not."""
    job = queue.job_of_run(run.folder.path.name, states)
    state = states[job] if job else None
    log = f"  ({job.log(state.job)})" if job and state and job.log(state.job).exists() else ""
    count = job_record.read(job.record).restarts if job else 0
    restarts = f", {plural(count, 'restart')}" if count else ""
    if run.state is RunState.running:
        is_in_job = state is not None and state.is_running
        return replace(run, note=f"job {state.job} {state.where}{restarts}{log}") if state and is_in_job else run
    if state and state.is_active:
        return replace(run, state=RunState.queued, note=f"{state}{restarts}")
    if waits is not None:
        return replace(run, state=RunState.queued, note=f"waits until more jobs may be in the queue{waits}")
    if not job or not state:
        return run
    advice = f"; {more_memory(job.asked.get('memory'))}" if state.state == "OUT_OF_MEMORY" else ""
    advice = f"; {NO_OUTPUT}" if state.was_not_launched else advice
    return replace(run, state=RunState.lost, note=f"{state}{advice}{log}")


def _screened(run: RunView, screening: Screening | None) -> RunView:
    """Return the run, marked if the screening of its sweep has dropped it."""
    when = screening.screened_out(run.group) if screening and run.state is RunState.partial else None
    return replace(run, state=RunState.screened_out, note=f"{RunState.screened_out.value} at {when}") if when else run


def is_going_on(folder: RunFolder) -> bool:
    """Return whether a run is training or waits in a sweep that is."""
    state = read_run(folder).state
    if state in (RunState.new, RunState.partial):
        return any(active_launchers.find(sweep.path) for sweep in sweeps_of(folder))
    return state is RunState.running


def _read_run(folder: RunFolder) -> RunView:
    if not folder.config.exists() and folder.state() is RunState.new:
        return RunView(folder, folder.path.name, state=RunState.new, note="its folder was removed")
    run = folder.snapshot()
    state, record, result, entries = run.state, run.record, run.result, folder.metrics_log.last(3)
    _check_frozen(folder)
    last = entries[-1] if entries else None
    note = result.note if result else ""
    if state is RunState.failed:
        note = last_line(folder.failure() or "")
    clock = result.clock if result else (last.clock if last else {})
    return RunView(
        folder,
        record.name,
        record.group,
        state,
        epoch=result.epochs if result else (last.epoch if last else 0),
        epochs=_epochs(record.config, last),
        metrics=result.metrics if result else {k: v for entry in entries for k, v in entry.metrics.items()},
        images_per_second=clock.get("images_per_second"),
        seconds_per_epoch=_seconds_per_epoch(entries),
        note=note,
    )


def _check_frozen(folder: RunFolder) -> None:
    """Raise Damaged if the frozen configuration was changed.

    Parsing takes long, so only one that is newer than the run's record is parsed: it is written before that.
    """
    if folder.config_is_younger():
        from headsweep.plan.frozen import frozen

        try:
            frozen(folder)
        except Damaged:
            raise
        except UserError:  # planned by another version, which whatever resumes the run reports
            return


def _epochs(config: Mapping[str, Any], last: Entry | None) -> int | None:
    """Return a run's duration in epochs; None where it is not known, or the record has none that is possible."""
    match = re.match(r"\s*(\d+(?:\.\d*)?(?:e\d+)?)\s*([esi])", str(config.get("duration")))
    count = float(match[1]) if match else math.inf
    if match is None or count > MOST:
        return None
    if match[2] == "e":
        return math.ceil(count)
    batch_size = config.get("batch_size")
    if last is None or not isinstance(batch_size, int) or batch_size < 1:
        return None
    steps = round(count if match[2] == "s" else count / batch_size)
    return -(-steps * last.epoch // last.step)


def _seconds_per_epoch(entries: Sequence[Entry]) -> float | None:
    """Return the shortest of the last epochs: one that was interrupted took longer than the training.

    An epoch in which the machine's clock was set back does not count.
    """
    timed = [entry for entry in entries if "time" in entry.clock]
    pairs = [(old, new) for old, new in itertools.pairwise(timed) if new.epoch > old.epoch]
    seconds = [(new.clock["time"] - old.clock["time"]) / (new.epoch - old.epoch) for old, new in pairs]
    return min((lasted for lasted in seconds if lasted > 0), default=None)


def last_change(sweep: Path, folders: Sequence[RunFolder]) -> float:
    """Return the Unix time at which a file of a sweep or of its runs last changed."""
    logs = [file for folder in folders for file in (folder.metrics_log.path, folder.log)]
    return max(map(_changed, [sweep / SWEEP_PLAN, *logs]))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0
