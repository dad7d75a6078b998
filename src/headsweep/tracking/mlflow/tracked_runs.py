"""Runs as MLflow holds them, converted back to the records that `desired_run` made them from."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from typing import Any

from headsweep.errors import UserError
from headsweep.tracking.cost import MODEL_COSTS
from headsweep.tracking.mlflow.desired_state import (
    CODE_TAGS,
    COMMIT_TAG,
    COST,
    DATA_TAG,
    DIRTY_TAG,
    FINGERPRINT_TAG,
    GROUP_TAG,
    KIND_TAG,
    NON_FINITE_TAG,
    PACKAGES_TAG,
    PRECISION_TAG,
    STATE_TAG,
    SWEEP_TAG,
)
from headsweep.tracking.mlflow.reader import MlflowReader, StoredRun
from headsweep.tracking.run_record import RunRecord, RunResult, RunState
from headsweep.tracking.tracker import TrackedRun

_NOT_FINITE = re.compile(r"(.+) is (nan|-?inf) at epoch (\d+)")  # an entry of the tag


def tracked_runs(uri: str, experiment: str, query: str) -> Iterator[TrackedRun]:
    """Return the runs of headsweep that MLflow's filter `query` matches, in the order in which they were started.

    Raises:
        UserError: the store cannot be read, or no run of headsweep's matches.
    """
    reader = MlflowReader(uri, experiment)
    stored = reader.runs(query)
    found = [run for run in stored if run.tags.get(KIND_TAG) == "run" and _is_complete(run)]
    if not found:
        raise UserError(_no_match(stored, query, experiment))
    return map(partial(_run, reader), found)


def _is_complete(run: StoredRun) -> bool:
    """Return whether it has what every table needs: other programs may set a tag of the same name."""
    return {FINGERPRINT_TAG, GROUP_TAG, STATE_TAG} <= run.tags.keys() and {
        "head.name",
        "heads",
        "seed",
    } <= run.params.keys()


def _no_match(stored: list[StoredRun], query: str, experiment: str) -> str:
    where = f"experiment {experiment}" + (f" match {query!r}" if query else "")
    if not stored:
        return f"no runs in {where}; give a filter such as \"params.`head.name` = 'ga'\", or another --experiment"
    return f"none of the {len(stored)} runs in {where} has headsweep's tags (headsweep.*); give another --experiment"


def _run(reader: MlflowReader, stored: StoredRun) -> TrackedRun:
    tags, state = stored.tags, RunState(stored.tags[STATE_TAG].partition(":")[0])
    parameters = {key: _typed(value) for key, value in stored.params.items()}
    cost = {name: int(stored.metrics[COST + name]) for name in MODEL_COSTS if COST + name in stored.metrics}
    commit = tags.get(COMMIT_TAG)
    record = RunRecord(
        fingerprint=tags[FINGERPRINT_TAG],
        group=tags[GROUP_TAG],
        name=tags.get("mlflow.runName", ""),
        sweep=tags.get(SWEEP_TAG, ""),
        seed=int(parameters["seed"]),
        config=_nested(parameters),
        parameters=parameters,
        code={
            "commit": None if commit == "unknown" else commit,
            "dirty": tags.get(DIRTY_TAG) == "true",
            **{key: tags[tag] for key, tag in CODE_TAGS.items() if tag in tags},
            "packages": _packages(tags.get(PACKAGES_TAG, "")),
        },
        cost=cost,
    )
    history = partial(reader.history, stored.run_id)
    out = tags.get("headsweep.screened_out")
    return TrackedRun(record, state, _result(stored, state), out, tags.get(DATA_TAG, ""), history)


def _packages(text: str) -> dict[str, str]:
    """Return distribution -> version and digest from the tag that lists them."""
    return {name: version for name, _, version in (one.partition(" ") for one in text.split(", ") if one)}


def _result(stored: StoredRun, state: RunState) -> RunResult | None:
    if state not in (RunState.finished, RunState.diverged):
        return None
    metrics = {name: value for name, value in stored.metrics.items() if not name.startswith(COST)}
    measured = {name.removeprefix(COST): value for name, value in stored.metrics.items() if name.startswith(COST)}
    clock = {name: value for name, value in measured.items() if name not in MODEL_COSTS}
    epochs = max((step for name, step in stored.steps.items() if not name.startswith((COST, "inspect/"))), default=0)
    metrics |= _not_finite(stored)
    precision = stored.tags.get(PRECISION_TAG)
    return RunResult(state.value, metrics, epochs, 0, clock, {"precision": precision} if precision else {})


def _not_finite(stored: StoredRun) -> dict[str, float]:
    """Return the metrics whose last value is not finite: MLflow has no point for it, but of an earlier epoch."""
    found = map(_NOT_FINITE.fullmatch, stored.tags.get(NON_FINITE_TAG, "").split("; "))
    return {it[1]: float(it[2]) for it in found if it and int(it[3]) >= stored.steps.get(it[1], 0)}


@lru_cache(maxsize=4096)  # thousands of runs share their values
def _typed(text: str) -> Any:
    """Return a parameter as it was before MLflow turned it into text."""
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
