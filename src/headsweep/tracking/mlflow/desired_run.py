"""What MLflow should hold of a run, from the run's folder alone.

NaN and infinity are no points: MLflow would store infinity as 1.8e308. They are named in tag `headsweep.nonfinite`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from headsweep.credentials import redacted
from headsweep.text import last_line
from headsweep.tracking.cost import of_model
from headsweep.tracking.inspection import FOLDER, Inspection, checkpoint_digest, last_inspection
from headsweep.tracking.metrics_log import Entry
from headsweep.tracking.mlflow.desired_state import (
    CODE_TAGS,
    COMMAND_TAG,
    COMMIT_TAG,
    COST,
    DATA_TAG,
    DIRTY_TAG,
    FINGERPRINT_TAG,
    FOLDER_TAG,
    GROUP_TAG,
    KIND_TAG,
    MAX_TAG,
    NON_FINITE_TAG,
    NOTE_TAG,
    PACKAGES_TAG,
    PRECISION_TAG,
    SCREENED_OUT_TAG,
    STATE_TAG,
    STATUS,
    SWEEP_TAG,
    DesiredState,
    Files,
    Point,
    version_of,
)
from headsweep.tracking.mlflow.reference import path_in
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord, RunResult, RunState
from headsweep.tracking.sweep_folder import SweepFolder, sweeps_of
from headsweep.tracking.typed_files import Damaged

CHECKPOINT = "checkpoint.json"  # artifact that names the file of a run's weights


def desired_run(folder: RunFolder, parent: str | None) -> DesiredState | None:
    """Return what MLflow should hold of a run, as a child of MLflow run `parent`; None before its first metrics."""
    run = folder.snapshot()  # first: the metrics log of a run that is over by then is complete
    state, record, result, entries = run.state, run.record, run.result, folder.entries()
    folder.metrics_log.sync()  # MLflow must not get a point that a power cut could still remove here
    inspection = last_inspection(folder.path)
    # From its first entry, not from its start, so that a replay has the same beginning.
    unfinished = state in (RunState.new, RunState.partial, RunState.running)
    if unfinished and not entries and not path_in(folder.path).exists():
        return None
    timed = [(entry, int(entry.clock["time"] * 1000)) for entry in entries if "time" in entry.clock]
    moments, planned = [moment for _, moment in timed], int(folder.config.stat().st_mtime * 1000)
    return DesiredState(
        folder=folder.path,
        query=f"tags.`{FINGERPRINT_TAG}` = '{record.fingerprint}'",
        name=record.name,
        status=STATUS[state],
        span=(min(moments, default=planned), max(moments, default=planned)),
        tags=_tags(folder, record, state, result, entries) | ({"mlflow.parentRunId": parent} if parent else {}),
        initial_tags={NOTE_TAG: _note(folder, record)},
        params={name: str(value) for name, value in record.parameters.items()},
        files=_files(folder, result, inspection),
        files_version=version_of(str(inspection)) if inspection else None,
        points=_points(record, result, entries) | (_inspection_points(inspection) if inspection else {}),
        milliseconds={(name, entry.epoch): moment for entry, moment in timed for name in entry.metrics},
        is_over=result is not None,
    )


def _tags(
    folder: RunFolder, record: RunRecord, state: RunState, result: RunResult | None, entries: Sequence[Entry]
) -> dict[str, str]:
    failure = last_line(folder.failure() or "") if state is RunState.failed else ""
    reason = failure or (result.note if result else "")
    commit = record.code.get("commit") or "unknown"
    tags = {
        KIND_TAG: "run",
        FINGERPRINT_TAG: record.fingerprint,
        FOLDER_TAG: str(folder.path.resolve()),
        DATA_TAG: record.data,
        GROUP_TAG: record.group,
        SWEEP_TAG: record.sweep,
        "headsweep.sweeps": ", ".join(sweep.name for sweep in sweeps_of(folder)),
        "headsweep.seed": str(record.seed),
        COMMIT_TAG: commit,
        DIRTY_TAG: str(bool(record.code.get("dirty"))).lower(),
        **{tag: record.code.get(key, "") for key, tag in CODE_TAGS.items()},
        PRECISION_TAG: folder.precision() or "",
        PACKAGES_TAG: ", ".join(f"{name} {version}" for name, version in record.packages.items()),
        STATE_TAG: f"{state.value}: {reason}" if reason else state.value,
        COMMAND_TAG: "\n".join(_commands(folder, record)),
        NON_FINITE_TAG: "; ".join(_non_finite(entries)),
        SCREENED_OUT_TAG: _screened_out(folder, record) if state is RunState.partial else "",
        "mlflow.source.name": "headsweep",
        "mlflow.source.git.commit": commit,
    }
    return {key: redacted(value)[:MAX_TAG] for key, value in tags.items() if value}


def _commands(folder: RunFolder, record: RunRecord) -> list[str]:
    """Return the commands that planned the run's first sweep; none if that was removed."""
    with suppress(Damaged):
        return SweepFolder(folder.output.sweeps / record.sweep).commands()
    return []


def _note(folder: RunFolder, record: RunRecord) -> str:
    """Return a description of the run, as Markdown: from its page in MLflow to its command."""
    commands = [f"Planned by\n\n    {command}" for command in _commands(folder, record)[-1:]]
    again = "\n".join(f"    headsweep {word} {record.fingerprint}" for word in ("explain", "reproduce"))
    return redacted("\n\n".join([*commands, f"Trace its numbers, or train it again, in the output folder\n\n{again}"]))


def _screened_out(run: RunFolder, record: RunRecord) -> str:
    """Return when the first sweep that screened the run out did so."""
    screenings = [screening for sweep in sweeps_of(run) if (screening := sweep.screening())]
    return next((when for screening in screenings if (when := screening.screened_out(record.group))), "")


def _non_finite(entries: Sequence[Entry]) -> Iterator[str]:
    for entry in entries:
        for name, value in sorted(entry.metrics.items()):
            if not math.isfinite(value):
                yield f"{name} is {value} at epoch {entry.epoch}"


def _points(record: RunRecord, result: RunResult | None, entries: Sequence[Entry]) -> dict[Point, float]:
    """Return every finite value, and the costs at epoch 0: MLflow sorts metrics as numbers, parameters as text."""
    costs = of_model(record.cost) | (result.clock if result else {})
    return {(f"{COST}{name}", 0): float(value) for name, value in costs.items()} | {
        (name, entry.epoch): float(value)
        for entry in entries
        for name, value in entry.metrics.items()
        if math.isfinite(value)
    }


def _inspection_points(inspection: Inspection) -> dict[Point, float]:
    """Return the metrics of each inspection at its number, the oldest first: MLflow can remove no value."""
    inspections = enumerate([*inspection.earlier, inspection.metrics], 1)
    return {(f"inspect/{name}", number): value for number, metrics in inspections for name, value in metrics.items()}


def _files(folder: RunFolder, result: RunResult | None, inspection: Inspection | None) -> Files:
    files: Files = {folder.config.name: folder.config_text}
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
    """Return a reference to the checkpoint: MLflow gets no copy of it."""
    path = folder.checkpoint.resolve()
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": checkpoint_digest(folder)}


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"
