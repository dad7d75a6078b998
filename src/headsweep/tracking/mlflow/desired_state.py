"""What MLflow should hold of a run and of a sweep, read from their folders alone (law 6: the metrics log is the truth).

NaN and infinity are no points: MLflow would store infinity as 1.8e308. They are named in tag `headsweep.nonfinite`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headsweep.credentials import hidden
from headsweep.tracking.inspection import FOLDER, Inspection, checkpoint_digest, last_inspection
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.mlflow.reference import path_in
from headsweep.tracking.run_folder import RunFolder, RunRecord, RunResult, RunState
from headsweep.tracking.screening import Screening
from headsweep.tracking.sweep_folder import SweepFolder, sweeps_of

Point = tuple[str, int]  # metric, epoch: where MLflow may hold one value and no more

_STATUS = {
    RunState.new: "KILLED",  # died before its first checkpoint
    RunState.partial: "KILLED",
    RunState.running: "RUNNING",
    RunState.finished: "FINISHED",
    RunState.diverged: "FAILED",
    RunState.failed: "FAILED",
}
FOLDER_TAG = "headsweep.folder"  # where its files lie
SCREENED_OUT = "headsweep.screened_out"  # tag: e.g. "3 of 20 epochs"
CHECKPOINT = "checkpoint.json"  # the file that names a run's weights
_TAG_LENGTH = 4000  # characters; MLflow refuses more than 8000
_NOTE_LENGTH = 7900


@dataclass(frozen=True)
class Wanted:
    """What MLflow should hold, as far as the folder knows at this moment."""

    place: Path  # the folder; it has one MLflow run in each store
    query: str  # finds the MLflow runs of this and of like-named folders
    name: str
    status: str
    span: tuple[int, int]  # start and end, unix milliseconds
    tags: dict[str, str]
    params: dict[str, str]
    files: dict[str, Callable[[], str] | Path]  # name -> text, or a file of that name
    files_version: str | None = None  # of files that may change
    points: dict[Point, float] = field(default_factory=dict)
    milliseconds: dict[Point, int] = field(default_factory=dict)  # when a point was logged
    is_over: bool = False  # no more points will come

    def contains(self, points: Mapping[Point, float]) -> bool:
        """Has the metrics log all of `points`, and are there any?"""
        return bool(points) and points.keys() <= self.points.keys() and not self.contradicted_by(points)

    def contradicted_by(self, points: Mapping[Point, float]) -> bool:
        """Is there a point in `points` that the metrics log lacks or contradicts? It cannot be taken back in MLflow.

        A run that is training may be on its way back to points which it lost with a crash.
        """
        if any(not _same(value, self.points.get(point, value)) for point, value in points.items()):
            return True
        names = {name for name, _ in self.points}
        return self.is_over and any(point not in self.points for point in points if point[0] in names)


def of_run(folder: RunFolder, parent: str | None) -> Wanted | None:
    """What MLflow should hold of a run, as a child of MLflow run `parent`; None before it has said a thing."""
    # The state first: a run that is over by then has logged everything that is read afterwards.
    state = folder.state()
    record, result, entries = folder.record(), folder.result(), folder.metrics_log.entries()
    folder.metrics_log.sync()  # MLflow must not know a point that a power cut could take back (law 6)
    inspection = last_inspection(folder.path)
    # From its first entry, not from its start, so that a replay has the same beginning.
    unfinished = state in (RunState.new, RunState.partial, RunState.running)
    if unfinished and not entries and not path_in(folder.path).exists():
        return None
    timed = [(entry, int(entry.clock["time"] * 1000)) for entry in entries if "time" in entry.clock]
    moments, planned = [moment for _, moment in timed], int(folder.config.stat().st_mtime * 1000)
    return Wanted(
        place=folder.path,
        query=f"tags.`headsweep.fingerprint` = '{record.fingerprint}'",
        name=record.name,
        status=_STATUS[state],
        span=(min(moments, default=planned), max(moments, default=planned)),
        tags=_run_tags(folder, record, state, result, entries) | ({"mlflow.parentRunId": parent} if parent else {}),
        params={name: str(value) for name, value in record.parameters.items()},
        files=_run_files(folder, result, inspection),
        files_version=_digest(str(inspection)) if inspection else None,
        points=_points(record, result, entries) | (_inspected(inspection) if inspection else {}),
        milliseconds={(name, entry.epoch): moment for entry, moment in timed for name in entry.metrics},
        is_over=result is not None,
    )


def of_sweep(folder: SweepFolder) -> Wanted | None:
    """What MLflow should hold of a sweep: the parent of its runs, with plan and table; None if it is a single run."""
    if not folder.is_one():
        return None
    is_launched = folder.is_active()  # first, as above
    plan, runs = folder.plan(), folder.runs()
    records, screening = [run.record() for run in runs], folder.screening()
    words = [_word(run.state(), record, screening) for run, record in zip(runs, records, strict=True)]
    seeds = sorted({record.seed for record in records})
    texts = {path.name: hidden(path.read_text()) for path in folder.files()}
    logs = [run.metrics_log.path for run in runs if run.metrics_log.path.exists()]
    end = max((path.stat().st_mtime for path in logs), default=folder.started())
    return Wanted(
        place=folder.path,
        query=f"tags.`headsweep.kind` = 'sweep' AND tags.`headsweep.sweep` = {_quoted(folder.name)}",
        name=folder.name,
        status="RUNNING" if is_launched else _sweep_status(words),
        span=(int(folder.started() * 1000), int(end * 1000)),
        tags={
            "headsweep.kind": "sweep",
            "headsweep.sweep": folder.name,
            FOLDER_TAG: str(folder.path.resolve()),
            "headsweep.seeds": ", ".join(map(str, seeds))[:_TAG_LENGTH],
            "headsweep.state": ", ".join(f"{n} {word}" for word, n in Counter(words).items()),
            "mlflow.source.name": "headsweep",
            **({"mlflow.note.content": _note(texts["table.md"])} if "table.md" in texts else {}),
        },
        # More seeds stay in the same sweep, and MLflow takes no parameter back: they are a tag.
        params={axis: _values(axis, records) for axis in plan["axes"] if axis != "seed"},
        files={name: lambda text=text: text for name, text in texts.items()},  # type: ignore[misc]
        files_version=_digest(json.dumps(texts, sort_keys=True)),
    )


def _run_tags(
    folder: RunFolder, record: RunRecord, state: RunState, result: RunResult | None, entries: Sequence[Entry]
) -> dict[str, str]:
    failure = (folder.failure() or "").strip().rpartition("\n")[2] if state is RunState.failed else ""
    reason = failure or (result.note if result else "")
    non_finite = "; ".join(_non_finite(entries))
    commit = record.code.get("commit") or "unknown"
    tags = {
        "headsweep.kind": "run",
        "headsweep.fingerprint": record.fingerprint,
        FOLDER_TAG: str(folder.path.resolve()),
        "headsweep.data": record.data,
        "headsweep.group": record.group,
        "headsweep.sweep": record.sweep,
        "headsweep.sweeps": ", ".join(sweep.name for sweep in sweeps_of(folder)),
        "headsweep.seed": str(record.seed),
        "headsweep.commit": commit,
        "headsweep.dirty": str(bool(record.code.get("dirty"))).lower(),
        "headsweep.state": f"{state.value}: {reason}" if reason else state.value,
        "headsweep.nonfinite": non_finite,
        SCREENED_OUT: _screened_out(folder, record) if state is RunState.partial else "",
        "mlflow.source.name": "headsweep",
        "mlflow.source.git.commit": commit,
    }
    return {key: hidden(value)[:_TAG_LENGTH] for key, value in tags.items() if value}


def _screened_out(run: RunFolder, record: RunRecord) -> str:
    """When the first sweep that screened it out did so."""
    screenings = [screening for sweep in sweeps_of(run) if (screening := sweep.screening())]
    return next((when for screening in screenings if (when := screening.screened_out(record.group))), "")


def _non_finite(entries: Sequence[Entry]) -> Iterator[str]:
    for entry in entries:
        for name, value in sorted(entry.metrics.items()):
            if not math.isfinite(value):
                yield f"{name} is {value} at epoch {entry.epoch}"


def _points(record: RunRecord, result: RunResult | None, entries: Sequence[Entry]) -> dict[Point, float]:
    """Every finite value, and the costs at epoch 0: MLflow sorts metrics as numbers, parameters as text."""
    costs = record.cost | (result.clock if result else {})
    return {(f"cost/{name}", 0): float(value) for name, value in costs.items()} | {
        (name, entry.epoch): float(value)
        for entry in entries
        for name, value in entry.metrics.items()
        if math.isfinite(value)
    }


def _inspected(inspection: Inspection) -> dict[Point, float]:
    """What each inspection has found, in the order in which they were made: MLflow takes no value back."""
    made = enumerate([*inspection.earlier, inspection.metrics], 1)
    return {(f"inspect/{name}", number): value for number, metrics in made for name, value in metrics.items()}


def _run_files(
    folder: RunFolder, result: RunResult | None, inspection: Inspection | None
) -> dict[str, Callable[[], str] | Path]:
    files: dict[str, Callable[[], str] | Path] = {folder.config.name: folder.config_text}
    if result is not None:
        files["environment.json"] = lambda: _json(result.environment)
        if folder.checkpoint.exists():
            files[CHECKPOINT] = lambda: _json(_checkpoint(folder))
        if folder.test_correct() is not None:
            files[folder.correct.name] = folder.correct
    if inspection is not None:
        files |= {f"{FOLDER}/{path.name}": path for path in inspection.files}
    return files


def _checkpoint(folder: RunFolder) -> dict[str, Any]:
    """A reference to the checkpoint: MLflow gets no copy of the weights."""
    path = folder.checkpoint.resolve()
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": checkpoint_digest(folder)}


def _quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


def _word(state: RunState, record: RunRecord, screening: Screening | None) -> str:
    is_out = state is RunState.partial and screening and screening.last_round(record.group)
    return "screened out" if is_out else state.value


def _sweep_status(words: Sequence[str]) -> str:
    """That of a sweep which nobody launches any more, though another sweep may train a run of it."""
    for state in (RunState.running, RunState.partial, RunState.new, RunState.failed):
        if state.value in words:
            return _STATUS[state]
    return "FINISHED"


def _values(axis: str, records: Sequence[RunRecord]) -> str:
    values = dict.fromkeys(str(_value(axis, record)) for record in records)
    return ", ".join(values)


def _value(axis: str, record: RunRecord) -> object:
    """The value of a key, which the sweep that first planned a run may not have had as an axis."""
    if axis in record.parameters:
        return record.parameters[axis]
    value: Any = record.config
    for key in axis.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _note(table: str) -> str:
    """The table as MLflow's UI shows it on the page of the run; a long one ends at a whole line."""
    if len(table) <= _NOTE_LENGTH:
        return table
    return table[:_NOTE_LENGTH].rpartition("\n")[0] + "\n\nThe rest is in artifact table.md."


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"


def _same(held: float, wanted: float) -> bool:
    return math.isclose(held, wanted, rel_tol=1e-12)  # what a store may lose on the way through its number format
