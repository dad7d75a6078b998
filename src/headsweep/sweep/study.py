"""A study from its configurations to its table: plan, check, freeze, train what is missing, compare."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from headsweep.config import PROJECT_ROOT, RunConfig, TrackingName
from headsweep.errors import FailedRunsError, UserError
from headsweep.report import published, table
from headsweep.sweep.display import Display
from headsweep.sweep.fingerprint import group
from headsweep.sweep.plan import Cost, Plan, freeze, make_plan
from headsweep.tracking.mlflow_projection import NullProjector, Projector
from headsweep.tracking.run_folder import RunFolder, RunResult, RunState

Changed = Callable[[RunFolder], None]


class Trainer(Protocol):
    """Where runs are trained."""

    def check(self, runs: Sequence[RunConfig]) -> list[Cost | UserError]:
        """The cost of each run, or why it cannot be built."""

    def train(self, folders: Sequence[RunFolder], display: Display, changed: Changed) -> None:
        """Train the runs in `folders`; a run that fails leaves that in its folder. `changed` hears of new metrics."""


def run_study(configs: Sequence[RunConfig], trainer: Trainer) -> Plan:
    """Train what is missing of the runs in `configs`, in `trainer`, and print the table of them all.

    Raises:
        UserError: a run is not valid (nothing has been started then), or the data is absent.
        FailedRunsError: some runs failed; the others have been trained and are in the table.
    """
    sources = published.load(PROJECT_ROOT / "sweeps" / "published")
    plan = make_plan(configs)
    freeze(plan, _check(plan, trainer))
    missing = [folder for folder in plan.folders if folder.result() is None]
    with _projector(configs[0]) as projector, Display(len(missing), epoch_lines=len(missing) == 1) as display:
        display.say(_opening(plan, missing))
        for folder in plan.folders:
            projector.notify(folder)
        if missing:
            trainer.train(missing, display, projector.notify)
    _show(plan, projector, sources)
    return plan


def objectives(plan: Plan) -> list[float]:
    """What a hyper-parameter search should maximise, for each configuration: top-1 on the images evaluated by epoch."""
    values = {planned.fingerprint: _objective(planned.folder.result()) for planned in plan.runs}
    return [values[cell] for cell in plan.cells]


def _objective(result: RunResult | None) -> float:
    metrics = result.metrics if result else {}
    return metrics.get("val/top1", metrics.get("test/top1", 0.0))


def _check(plan: Plan, trainer: Trainer) -> dict[str, Cost]:
    """Fingerprint -> cost of the runs that are new; seeds of one cell are built once."""
    new = {planned.fingerprint: planned.run for planned in plan.runs if planned.folder.state() is RunState.new}
    cells = {group(run): run for run in new.values()}
    answers = dict(zip(cells, trainer.check(list(cells.values())) if cells else [], strict=True))
    costs: dict[str, Cost] = {}
    for fingerprint, run in new.items():
        answer = answers[group(run)]
        if isinstance(answer, UserError):
            raise answer
        costs[fingerprint] = answer
    return costs


def _projector(config: RunConfig) -> Projector | NullProjector:
    if config.tracking.name is TrackingName.none:
        return NullProjector()
    return Projector(config.tracking.uri, config.tracking.experiment, config.paths.output)


def _opening(plan: Plan, missing: Sequence[RunFolder]) -> str:
    partial = sum(folder.state() is RunState.partial for folder in missing)
    failed = sum(folder.state() is RunState.failed for folder in missing)
    parts = [f"{len(plan.runs)} run{'s' if len(plan.runs) != 1 else ''} in {plan.name}"]
    done = len(plan.runs) - len(missing)
    parts += [
        f"{count} {word}"
        for count, word in ((done, "done already"), (partial, "to be continued"), (failed, "to be tried again"))
        if count
    ]
    return ": ".join([parts[0], ", ".join(parts[1:])]) if parts[1:] else parts[0]


def _show(plan: Plan, projector: Projector | NullProjector, sources: Sequence[published.Source]) -> None:
    comparison = table.build(plan.folders, sources=sources)
    comparison.write(plan.folder)
    comparison.print()
    print(f"table    {plan.folder / 'table.md'} and table.csv")
    print(f"runs     {plan.output / 'runs'}")
    print(projector.description())
    failed = [folder for folder in plan.folders if folder.result() is None]
    if failed:
        reasons = [f"{folder.record().name}: {_reason(folder)}" for folder in failed]
        sys.stdout.flush()
        raise FailedRunsError(len(plan.runs), reasons)


def _reason(folder: RunFolder) -> str:
    lines = (folder.failure() or "it did not end").strip().splitlines()
    return f"{lines[-1]} (see {folder.log})"
