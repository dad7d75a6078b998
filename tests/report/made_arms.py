"""Cells that differ in a hyper-parameter, with accuracies on validation and test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from made_cells import made_cell

from headsweep.report.read.cells import Cell
from headsweep.tracking.run_record import RunState

LR = "optimizer.lr"
SEEDS = (-0.004, 0.001, 0.003, -0.002, 0.002)  # of accuracy, by seed


def made_setting(
    head: str,
    top1: float | Sequence[float | RunState],
    val: float | Sequence[float] | None = None,
    variant: str | None = None,
    heads: int = 1,
    **parameters: Any,
) -> Cell:
    """A cell with five seeds around `top1` and `val`, or with those of the seeds; `val` None has no such images.

    The parameters are dotted keys with `__` for the dot.
    """
    named = {key.replace("__", "."): value for key, value in parameters.items()}
    tops = [top1 + seed for seed in SEEDS] if isinstance(top1, float) else top1
    cell = made_cell(head, tops, heads, parameters=named)
    if val is not None:
        vals = [val] * len(tops) if isinstance(val, float) else list(val)
        cell = with_val(cell, vals)
    return replace(cell, variant=variant)


def with_val(cell: Cell, vals: Sequence[float]) -> Cell:
    """The cell with these accuracies on validation images, as far as its runs finished."""
    runs = []
    for run, val in zip(cell.runs, vals, strict=True):
        result = run.result and replace(run.result, metrics={**run.result.metrics, "val/top1": val})
        runs.append(replace(run, result=result))
    return replace(cell, runs=tuple(runs))


def learning_rates(val: bool = True, heads: int = 1) -> list[Cell]:
    """Three learning rates of two heads: seqpool is best at 3e-3 with 85.23 %, ga at 1e-2 with 84.56 %."""
    tops = {
        "seqpool": {1e-3: 0.7712, 3e-3: 0.8523, 1e-2: 0.5998},
        "ga": {1e-3: 0.7803, 3e-3: 0.8401, 1e-2: 0.8456},
    }
    wobble = {"seqpool": (-0.0155, 0.0165, -0.0095, 0.0105, -0.002), "ga": (0.001, 0.0, -0.001, 0.002, -0.002)}
    return [
        made_setting(
            head, [top1 + by for by in wobble[head]], top1 - 0.01 if val else None, heads=heads, optimizer__lr=lr
        )
        for head, by_lr in tops.items()
        for lr, top1 in by_lr.items()
    ]
