"""Cells without files, for tests of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headsweep.report.read.cells import Cell, Run
from headsweep.tracking.run_record import RunRecord, RunResult, RunState

CODE = {"commit": "abc123", "dirty": False}


def made_cell(
    head: str,
    top1: Sequence[float | RunState],
    heads: int = 1,
    *,
    parameters: Mapping[str, Any] | None = None,
    clocks: Sequence[Mapping[str, float]] = (),
    first_seed: int = 0,
) -> Cell:
    """A cell with a run for each entry of `top1`: its accuracy, or the state of a run without one."""
    shown = dict(parameters or {})
    runs = []
    for at, value in enumerate(top1):
        seed = first_seed + at
        group = f"{head}-{heads}-{shown}"
        dataset = {"name": shown.get("dataset.name", "digits")}
        config = {"head": {"name": head}, "heads": heads, "seed": seed, "dataset": dataset, "duration": "10 epochs"}
        record = RunRecord(f"{group}-{seed}", group, "", "made", seed, config, {"heads": heads, **shown}, CODE, {})
        state, result = RunState.finished, None
        if isinstance(value, RunState):
            state = value
        else:
            clock = dict(clocks[at]) if clocks else {}
            result = RunResult("finished", {"test/top1": float(value)}, 10, 100, clock, {"device": "cpu"})
        runs.append(Run(record, state, result))
    return Cell(tuple(runs))
