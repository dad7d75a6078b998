"""Runs as MLflow holds them, in the shape of those that lie in folders."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

from headsweep.errors import UserError
from headsweep.report.read.cells import Cell, Run, gather
from headsweep.tracking.mlflow.reading import MlflowReader, StoredRun
from headsweep.tracking.run_folder import RunRecord, RunResult, RunState

_COST = "cost/"
_COUNTS = ("parameters", "head_parameters", "flops", "head_flops")


def read_stored(uri: str, experiment: str, query: str) -> list[Cell]:
    """The cells of the runs that MLflow's filter `query` matches, in the order in which they were started.

    A run that was logged twice, from two outputs folders, counts once: as the one that finished, or the first.

    Raises:
        UserError: the store cannot be read, or nothing of headsweep's matches.
    """
    reader = MlflowReader(uri, experiment)
    stored = reader.runs(query)
    ours = [run for run in stored if run.tags.get("headsweep.kind") == "run" and _is_whole(run)]
    if not ours:
        raise UserError(_nothing(stored, query, experiment))
    runs: dict[str, Run] = {}
    for run in map(partial(_run, reader), ours):
        if run.record.fingerprint not in runs or not runs[run.record.fingerprint].finished:
            runs[run.record.fingerprint] = run
    return gather(runs.values())


def _is_whole(run: StoredRun) -> bool:
    """Does it have what every table needs? Others may have set a tag like ours."""
    return {"headsweep.fingerprint", "headsweep.group", "headsweep.state"} <= run.tags.keys() and {
        "head.name",
        "heads",
        "seed",
    } <= run.params.keys()


def _nothing(stored: list[StoredRun], query: str, experiment: str) -> str:
    where = f"experiment {experiment}" + (f" match {query!r}" if query else "")
    if not stored:
        return f"no runs in {where}; want a filter such as \"params.`head.name` = 'ga'\", or another --experiment"
    return (
        f"none of the {len(stored)} runs in {where} is one of headsweep's (tags headsweep.*); want another --experiment"
    )


def _run(reader: MlflowReader, stored: StoredRun) -> Run:
    tags, state = stored.tags, RunState(stored.tags["headsweep.state"].partition(":")[0])
    parameters = {key: _typed(value) for key, value in stored.params.items()}
    cost = {name: int(stored.metrics[_COST + name]) for name in _COUNTS if _COST + name in stored.metrics}
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
    clock = {name: value for name, value in measured.items() if name not in _COUNTS}
    epochs = max((stored.steps[name] for name in metrics), default=0)
    return RunResult(state.value, metrics, epochs, 0, clock)


@lru_cache(maxsize=4096)  # thousands of runs share their values
def _typed(text: str) -> Any:
    """A parameter as it was before MLflow made a text of it."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if not isinstance(value, float) or math.isfinite(value) else text


def _nested(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys as sections."""
    config: dict[str, Any] = {}
    for key, value in parameters.items():
        *sections, last = key.split(".")
        place = config
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return config
