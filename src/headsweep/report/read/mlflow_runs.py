"""Read runs from MLflow as if they were read from their folders."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

from headsweep.errors import UserError
from headsweep.report.read.cells import MODEL_COSTS, Cell, Run, gather
from headsweep.tracking.mlflow.reading import MlflowReader, StoredRun
from headsweep.tracking.run_folder import RunRecord, RunResult, RunState

_COST = "cost/"


def read_mlflow_cells(uri: str, experiment: str, query: str) -> list[Cell]:
    """Return the cells of the runs that match an MLflow filter, in the order in which they were started.

    A run that was logged twice, from two output folders, counts once: as the one that finished, or the first.

    Raises:
        UserError: the store cannot be read, or no run of headsweep matches.
    """
    reader = MlflowReader(uri, experiment)
    stored = reader.runs(query)
    of_headsweep = [run for run in stored if run.tags.get("headsweep.kind") == "run" and _is_complete(run)]
    if not of_headsweep:
        raise UserError(_no_runs(stored, query, experiment))
    runs: dict[str, Run] = {}
    for run in map(partial(_run, reader), of_headsweep):
        if run.record.fingerprint not in runs or not runs[run.record.fingerprint].finished:
            runs[run.record.fingerprint] = run
    return gather(runs.values())


def _is_complete(run: StoredRun) -> bool:
    """Has the run all that a table needs? Other programs may set the same tag."""
    return {"headsweep.fingerprint", "headsweep.group", "headsweep.state"} <= run.tags.keys() and {
        "head.name",
        "heads",
        "seed",
    } <= run.params.keys()


def _no_runs(stored: list[StoredRun], query: str, experiment: str) -> str:
    where = f"experiment {experiment}" + (f" match {query!r}" if query else "")
    if not stored:
        return f"no runs in {where}; use another filter, e.g. \"params.`head.name` = 'ga'\", or another --experiment"
    return f"none of the {len(stored)} runs in {where} was logged by headsweep; use another --experiment"


def _run(reader: MlflowReader, stored: StoredRun) -> Run:
    tags, state = stored.tags, RunState(stored.tags["headsweep.state"].partition(":")[0])
    parameters = {key: _typed(value) for key, value in stored.params.items()}
    cost = {name: int(stored.metrics[_COST + name]) for name in MODEL_COSTS if _COST + name in stored.metrics}
    commit = tags.get("headsweep.commit")
    record = RunRecord(
        fingerprint=tags["headsweep.fingerprint"],
        group=tags["headsweep.group"],
        name=tags.get("mlflow.runName", ""),
        sweep=tags.get("headsweep.sweep", ""),
        seed=int(parameters["seed"]),
        config=_nested(parameters),
        parameters=parameters,
        code={"commit": None if commit == "unknown" else commit, "dirty": tags.get("headsweep.dirty") == "true"},
        cost=cost,
    )
    history = partial(reader.history, stored.run_id)
    out = tags.get("headsweep.screened_out")
    return Run(record, state, _result(stored, state), out, tags.get("headsweep.data", ""), history)


def _result(stored: StoredRun, state: RunState) -> RunResult | None:
    if state not in (RunState.finished, RunState.diverged):
        return None
    metrics = {name: value for name, value in stored.metrics.items() if not name.startswith(_COST)}
    measured = {name.removeprefix(_COST): value for name, value in stored.metrics.items() if name.startswith(_COST)}
    clock = {name: value for name, value in measured.items() if name not in MODEL_COSTS}
    epochs = max((stored.steps[name] for name in metrics), default=0)
    return RunResult(state.value, metrics, epochs, 0, clock)


@lru_cache(maxsize=4096)  # thousands of runs share their values
def _typed(text: str) -> Any:
    """Return a parameter with the type that it had before MLflow stored it as text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if not isinstance(value, float) or math.isfinite(value) else text


def _nested(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as nested sections."""
    config: dict[str, Any] = {}
    for key, value in parameters.items():
        *sections, last = key.split(".")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return config
