"""What MLflow should hold of a sweep, from the folders of the sweep and of its runs alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from headsweep.credentials import redacted
from headsweep.tracking.design import Design
from headsweep.tracking.mlflow.desired_state import (
    COMMAND_TAG,
    FOLDER_TAG,
    KIND_TAG,
    MAX_TAG,
    NOTE_TAG,
    STATE_TAG,
    STATUS,
    SWEEP_TAG,
    DesiredState,
    version_of,
)
from headsweep.tracking.mlflow.store import quoted
from headsweep.tracking.run_record import RunRecord, RunSnapshot, RunState
from headsweep.tracking.screening import Screening
from headsweep.tracking.sweep_folder import SweepFolder

_MAX_NOTE = 7900  # characters


def desired_sweep(folder: SweepFolder) -> DesiredState | None:
    """Return what MLflow should hold of a sweep, the parent of its runs; None if it is a single run."""
    if not folder.has_several_runs():
        return None
    is_launched = folder.is_active()  # first: what its launchers wrote before they ended is read below
    plan, runs, screening = folder.plan(), folder.runs(), folder.screening()
    snapshots = [run.snapshot() for run in runs]
    records, states = [run.record for run in snapshots], [_state(run, screening) for run in snapshots]
    seeds = sorted({record.seed for record in records})
    texts = {path.name: redacted(path.read_text()) for path in folder.files()}
    logs = [run.metrics_log.path for run in runs if run.metrics_log.path.exists()]
    end = max((path.stat().st_mtime for path in logs), default=folder.started())
    return DesiredState(
        folder=folder.path,
        query=f"tags.`{KIND_TAG}` = 'sweep' AND tags.`{SWEEP_TAG}` = {quoted(folder.name)}",
        name=folder.name,
        status="RUNNING" if is_launched else _status(states),
        span=(int(folder.started() * 1000), int(end * 1000)),
        tags={
            KIND_TAG: "sweep",
            SWEEP_TAG: folder.name,
            FOLDER_TAG: str(folder.path.resolve()),
            "headsweep.seeds": ", ".join(map(str, seeds))[:MAX_TAG],
            STATE_TAG: ", ".join(f"{n} {state.value}" for state, n in Counter(states).items()),
            "mlflow.source.name": "headsweep",
            **({COMMAND_TAG: "\n".join(folder.commands())[:MAX_TAG]} if plan["commands"] else {}),
            **({NOTE_TAG: _note(texts["table.md"])} if "table.md" in texts else {}),
        },
        # More seeds stay in the same sweep, and MLflow cannot change a parameter: they are a tag.
        params=_axes(plan["axes"], folder.design(), records),
        files={name: lambda text=text: text for name, text in texts.items()},  # type: ignore[misc]
        files_version=version_of(json.dumps(texts, sort_keys=True)),
    )


def _state(run: RunSnapshot, screening: Screening | None) -> RunState:
    is_out = run.state is RunState.partial and screening and screening.last_round(run.record.group)
    return RunState.screened_out if is_out else run.state


def _status(states: Sequence[RunState]) -> str:
    """Return the status of a sweep without a launcher, though another sweep may train one of its runs."""
    for state in (RunState.running, RunState.partial, RunState.new, RunState.failed):
        if state in states:
            return STATUS[state]
    return "FINISHED"


def _axes(axes: Sequence[str], design: Design, records: Sequence[RunRecord]) -> dict[str, str]:
    """Return the values of each axis; the names of variants for the keys that they set."""
    names = ", ".join(dict.fromkeys(design.variants[it.group] for it in records if it.group in design.variants))
    others = [axis for axis in axes if axis != "seed" and not (names and axis in design.variant_keys)]
    return {**({"variant": names} if names else {}), **{axis: _values(axis, records) for axis in others}}


def _values(axis: str, records: Sequence[RunRecord]) -> str:
    return ", ".join(dict.fromkeys(str(_value(axis, record)) for record in records))


def _value(axis: str, record: RunRecord) -> object:
    """Return the value of a key; the sweep that first planned a run may not have had it as an axis."""
    if axis in record.parameters:
        return record.parameters[axis]
    value: Any = record.config
    for key in axis.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _note(table: str) -> str:
    """Return the table as a note, which MLflow shows on the page of the run; a long one ends at a whole line."""
    if len(table) <= _MAX_NOTE:
        return table
    return table[:_MAX_NOTE].rpartition("\n")[0] + "\n\nThe rest is in artifact table.md."
