"""Runs made in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headsweep.report.read.cells import Run, gather
from headsweep.report.table.build import compare
from headsweep.report.table.model import Question, Table
from headsweep.tracking.run_record import RunRecord, RunResult, RunState

EPOCHS = 8


def run(head: str, heads: int, seed: int, top1: float | None, lr: float = 1e-3, **result) -> Run:
    """A run that finished with `top1`; None leaves it unfinished."""
    parameters = {"model.name": "cct_2_3x2", "head.name": head, "heads": heads, "seed": seed, "optimizer.lr": lr}
    config = {"head": {"name": head}, "heads": heads, "optimizer": {"lr": lr}, "duration": f"{EPOCHS} epochs"}
    record = RunRecord(
        fingerprint=f"{head}-{heads}-{lr}-{seed}",
        group=f"{head}-{heads}-{lr}",
        name=f"{head}{heads}-seed{seed}",
        sweep="pilot",
        seed=seed,
        config=config,
        parameters=parameters,
        code={"commit": "abc123", "dirty": False},
        cost={
            "parameters": 280_000 + 100 * heads * len(head),
            "head_parameters": 1000 * heads,
            "flops": 7_500_000 + 10_000 * heads * len(head),
            "head_flops": 100_000 * heads,
        },
    )
    if top1 is None:
        return Run(record, RunState.partial, None)
    alone = {f"test/per_head/top1_{k}": top1 - 0.01 * k for k in range(1, heads + 1)} if heads > 1 else {}
    metrics = {"test/top1": top1, "test/top5": (1 + top1) / 2, "val/top1": top1, **alone} | result.pop("metrics", {})
    clock = {"images_per_second": 1000.0 / heads, "train_seconds": 60.0 * heads, "peak_memory_gib": 0.5}
    state = result.pop("state", "finished")
    ended = RunResult(state, metrics, EPOCHS, 100, clock, {"device": "cpu", "torch": "2.9"}, result.pop("note", ""))
    history = {epoch: top1 * (1 - math.exp(-epoch)) for epoch in range(1, EPOCHS + 1)}
    by_epoch = result.pop("history", {"val/top1": history})
    assert not result, f"unknown: {result}"
    return Run(record, RunState(state), ended, history=lambda metric: by_epoch.get(metric, {}))


def table_of(runs: Sequence[Run], **question) -> Table:
    """The comparison of some runs."""
    return compare(gather(runs), Question(**question))
