"""What is known of sweeps and runs from state on disk, for whoever looks from another terminal.

Nothing here imports what is heavy, writes, or holds up a run: a thousand runs are read in a fraction of a second. What
cannot be read is shown as damaged.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from headsweep.errors import UserError
from headsweep.status import queue
from headsweep.tracking import active_launchers
from headsweep.tracking.metrics_log import MOST, Entry
from headsweep.tracking.run_folder import TAIL, RunFolder, RunState
from headsweep.tracking.screening import Screening
from headsweep.tracking.sweep_folder import SweepFolder, sweeps_of
from headsweep.tracking.typed_files import Damaged

PLAN = "plan.json"
SCREENED_OUT = "screened out"
STARTING = "start one with `python src/train.py -m head=seqpool,ga heads=1,4`"


@dataclass(frozen=True)
class RunView:
    """One run, as its folder says."""

    folder: RunFolder
    name: str
    group: str = ""
    state: RunState | None = None  # None: its folder is damaged
    epoch: int = 0  # epochs done
    epochs: int | None = None  # epochs planned; None where only the size of the data set tells and no epoch is recorded
    metrics: Mapping[str, float] | None = None  # the last value of each
    images_per_second: float | None = None
    seconds_per_epoch: float | None = None  # with its evaluation
    note: str = ""  # why it failed, diverged, was screened out, waits or cannot be read, in one line
    beside: str = ""  # what its sweep knows of it beside its own folder: queued, lost, screened out

    @property
    def word(self) -> str:
        """Its state in a word or two."""
        if self.beside:
            return self.beside
        return self.state.value if self.state else "damaged"

    @property
    def top1(self) -> tuple[str, float] | None:
        """The metric that is evaluated each epoch, and its last value."""
        known = self.metrics or {}
        return next(((name, known[name]) for name in ("val/top1", "test/top1") if name in known), None)


@dataclass(frozen=True)
class SweepView:
    """One sweep, as its folder says."""

    path: Path
    runs: Sequence[RunView]
    active: float  # Unix time of the last sign of life
    note: str = ""  # why its plan cannot be read

    @property
    def name(self) -> str:
        """Its name."""
        return self.path.name

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """State -> how many of its runs are in it; none is 0."""
        found = Counter(run.word for run in self.runs)
        return {word: found[word] for word in (*(state.value for state in ORDER), *OTHER_WORDS) if found[word]}

    @property
    def best(self) -> RunView | None:
        """The run with the highest top-1; one that has diverged has none."""
        scored = [run for run in self.runs if run.top1 and run.state is not RunState.diverged]
        return max(scored, key=lambda run: run.top1[1] if run.top1 else 0, default=None)

    def seconds_left(self) -> float | None:
        """How long until all runs are done, with as many at a time as now; None if none runs or no epoch is recorded.

        An epoch takes as long as the run's last ones; before it has any, as those of its cell, or of the sweep.
        """
        running = [run for run in self.runs if run.state is RunState.running]
        waiting = [run for run in self.runs if run.word in (RunState.new.value, RunState.partial.value)]
        timed = [run for run in self.runs if run.seconds_per_epoch]
        if not running or not timed:
            return None
        everywhere = _mean_seconds(timed)
        cells: dict[str, list[RunView]] = {}
        for run in timed:
            cells.setdefault(run.group, []).append(run)
        seconds = {group: _mean_seconds(runs) for group, runs in cells.items()}
        longest = max(run.epochs or 0 for run in self.runs)
        work = [
            ((longest if run.epochs is None else run.epochs) - run.epoch)
            * (run.seconds_per_epoch or seconds.get(run.group, everywhere))
            for run in (*running, *waiting)
        ]
        return max(sum(work) / len(running), *work)


ORDER = (
    RunState.finished,
    RunState.running,
    RunState.failed,
    RunState.diverged,
    RunState.partial,
    RunState.new,
)

OTHER_WORDS = ("queued", "lost", SCREENED_OUT, "damaged")


def read_run(folder: RunFolder) -> RunView:
    """What the files of a run say."""
    try:
        return _read_run(folder)
    except Damaged as error:
        return RunView(folder, folder.path.name, note=str(error))


def planned(path: Path) -> list[RunFolder]:
    """The runs of the sweep in folder `path`.

    Raises:
        Damaged: its plan is not as it was written.
    """
    return SweepFolder(path).planned()


def read_sweep(path: Path) -> SweepView:
    """What the files of the sweep in folder `path`, and of its runs, say."""
    return read_sweeps([path])[0]


def read_sweeps(paths: Sequence[Path]) -> list[SweepView]:
    """As `read_sweep`, for several; a cluster, which may take seconds, is asked once."""
    views, jobs = zip(*map(_with_its_jobs, map(_read_sweep, paths)), strict=True) if paths else ((), ())
    states = queue.states_of(job for theirs in jobs for job in theirs.values())
    return [_with_jobs(view, theirs, states) for view, theirs in zip(views, jobs, strict=True)]


def _read_sweep(path: Path) -> SweepView:
    try:
        folders, screening = planned(path), SweepFolder(path).screening()
    except Damaged as error:
        return SweepView(path, (), _last_sign(path, ()), str(error))
    runs = [_marked(read_run(folder), screening) for folder in folders]
    return SweepView(path, runs, _last_sign(path, folders))


def _with_its_jobs(sweep: SweepView) -> tuple[SweepView, dict[str, str]]:
    """The sweep, and fingerprint -> the job of a run that nobody trains now and that is to be trained."""
    states = (RunState.new, RunState.partial)
    idle = {run.folder.path.name for run in sweep.runs if run.state in states and not run.beside}
    try:
        jobs = queue.jobs_of(sweep.path)
    except Damaged as error:
        return replace(sweep, note=str(error)), {}
    return sweep, {fingerprint: job for fingerprint, job in jobs.items() if fingerprint in idle}


def _with_jobs(sweep: SweepView, jobs: Mapping[str, str], states: Mapping[str, queue.JobState]) -> SweepView:
    """The sweep with what the cluster says of its jobs."""
    known = {fingerprint: states[job] for fingerprint, job in jobs.items() if job in states}
    runs = [_queued(run, known[name]) if (name := run.folder.path.name) in known else run for run in sweep.runs]
    return replace(sweep, runs=runs)


def _queued(run: RunView, job: queue.JobState) -> RunView:
    return replace(run, beside="queued" if job.is_active else "lost", note=str(job))


def _marked(run: RunView, screening: Screening | None) -> RunView:
    """The run, as the screening of a sweep has left it."""
    when = screening.screened_out(run.group) if screening and run.state is RunState.partial else None
    return replace(run, beside=SCREENED_OUT, note=f"screened out at {when}") if when else run


def sweep_folders(output: Path) -> list[Path]:
    """The folders of all sweeps in the outputs folder."""
    return [plan.parent for plan in (output / "sweeps").glob(f"*/{PLAN}")]


def find_sweep(name: str, output: Path) -> Path:
    """The folder of a sweep: `name` is its name or the beginning of it, or "latest".

    Raises:
        UserError: there is none, or there are several.
    """
    if not name.strip():
        raise UserError("the name of a sweep is empty; want its beginning, or latest")
    known = {folder.name: folder for folder in sweep_folders(output)}
    if not known:
        raise UserError(f"no sweep in {output} (see --output); {STARTING}")
    if name == "latest":
        return max(known.values(), key=_last_active)
    found = [name] if name in known else sorted(other for other in known if other.startswith(name))
    if len(found) != 1:
        which = f"may be any of {', '.join(found)}" if found else f"no such sweep; known: {', '.join(sorted(known))}"
        raise UserError(f"{name}: {which}")
    return known[found[0]]


def find_run(name: str, output: Path) -> RunFolder:
    """A run: `name` is its fingerprint or name, or the beginning of one.

    Raises:
        UserError: there is none, or there are several.
    """
    if not name.strip():
        raise UserError("the name of a run is empty; want its fingerprint or name, or the beginning of one")
    runs = [read_run(RunFolder(path)) for path in sorted((output / "runs").glob("*")) if path.is_dir()]
    if not runs:
        raise UserError(f"no run in {output} (see --output); {STARTING}")
    for matches in (_is_exactly, _begins):
        found = [run for run in runs if matches(run, name)]
        if len(found) == 1:
            return found[0].folder
        if found:
            several = ", ".join(f"{run.folder.path.name} ({run.name})" for run in found[:5])
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            raise UserError(f"{name}: may be any of {several}{more}; give more of the fingerprint")
    raise UserError(f"{name}: no run of that fingerprint or name in {output}; `headsweep status SWEEP` lists them")


def find_each(names: Sequence[str], output: Path) -> list[RunFolder]:
    """The runs that `names` stand for: sweeps (see `find_sweep`) or single runs (see `find_run`).

    Raises:
        UserError: a name is neither, or is not clear, or its plan is damaged.
    """
    sweeps = [folder.name for folder in sweep_folders(output)]
    found: dict[Path, RunFolder] = {}
    for name in names:
        is_sweep = name == "latest" or any(sweep.startswith(name) for sweep in sweeps)
        folders = planned(find_sweep(name, output)) if is_sweep else [find_run(name, output)]
        found |= {folder.path: folder for folder in folders}
    return list(found.values())


def is_going_on(folder: RunFolder) -> bool:
    """Is a run being trained, or does it wait for its turn?"""
    state = read_run(folder).state
    if state in (RunState.new, RunState.partial):
        return any(active_launchers.find(sweep.path) for sweep in sweeps_of(folder))
    return state is RunState.running


def _is_exactly(run: RunView, name: str) -> bool:
    return name in (run.folder.path.name, run.name)


def _begins(run: RunView, name: str) -> bool:
    return run.folder.path.name.startswith(name) or run.name.startswith(name)


def _read_run(folder: RunFolder) -> RunView:
    # The state first: a run that ends meanwhile then counts as running, not as finished without a result.
    state = folder.state()
    if state is RunState.new and not folder.config.exists():
        return RunView(folder, folder.path.name, state=state, note="its folder was removed")
    record, result, entries = folder.record(), folder.result(), folder.metrics_log.last(3, TAIL)
    _check_frozen(folder)
    last = entries[-1] if entries else None
    note = result.note if result else ""
    if state is RunState.failed:
        note = (folder.failure() or "").strip().rpartition("\n")[2]
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

    Only one that is younger than the run's record is parsed, which takes long: it is written before that.
    """
    if folder.config_is_younger():
        from headsweep.plan.frozen import frozen

        try:
            frozen(folder)
        except Damaged:
            raise
        except UserError:  # planned by another version, which is for what goes on with the run to say
            return


def _epochs(config: Mapping[str, Any], last: Entry | None) -> int | None:
    """How many epochs a run's duration is; None where it is not known, or the record has none that can be."""
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
    """The shortest of the last epochs: one that was interrupted lasted longer, and says nothing.

    Nor does one in which the machine's clock was set back.
    """
    timed = [entry for entry in entries if "time" in entry.clock]
    pairs = [(old, new) for old, new in itertools.pairwise(timed) if new.epoch > old.epoch]
    seconds = [(new.clock["time"] - old.clock["time"]) / (new.epoch - old.epoch) for old, new in pairs]
    return min((lasted for lasted in seconds if lasted > 0), default=None)


def _last_active(sweep: Path) -> float:
    try:
        return _last_sign(sweep, planned(sweep))
    except Damaged:
        return _last_sign(sweep, ())


def _last_sign(sweep: Path, folders: Sequence[RunFolder]) -> float:
    """When a sweep gave its last sign of life, in Unix time."""
    return max(
        map(_changed, [sweep / PLAN, *(file for folder in folders for file in (folder.metrics_log.path, folder.log))])
    )


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0


def _mean_seconds(runs: Sequence[RunView]) -> float:
    return sum(run.seconds_per_epoch or 0 for run in runs) / len(runs)
