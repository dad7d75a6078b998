"""The plan: the expanded, checked list of runs, each frozen in its folder before any run starts (invariant 3)."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import OmegaConf

from headsweep.config import FileHeadConfig, RunConfig
from headsweep.config.keys import keys_with, nested, without_neutral
from headsweep.config.traits import SUMMARY
from headsweep.credentials import redacted
from headsweep.errors import UserError
from headsweep.plan.code_of_runs import current_code, with_packages
from headsweep.plan.design import Declared, continued, design_of, unequal_tuning
from headsweep.plan.fingerprint import differing, fingerprint, group, identity
from headsweep.plan.lookup import Lookup, indented, refusal
from headsweep.plan.run_names import run_name, run_names
from headsweep.plan.same_runs import collapses
from headsweep.tracking import atomic_files
from headsweep.tracking.cost import RunCost
from headsweep.tracking.design import Design
from headsweep.tracking.output_folder import SWEEP_PLAN, OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord, RunState
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan and its folder."""

    run: RunConfig
    fingerprint: str
    folder: RunFolder


@dataclass(frozen=True)
class Plan:
    """The distinct runs of one command, in the order of the grid."""

    name: str
    runs: tuple[PlannedRun, ...]
    cells: tuple[str, ...]  # the fingerprint of each configuration of the command, repetitions included
    axes: tuple[str, ...]  # dotted keys in which the runs differ
    output: Path
    design: Design = field(default_factory=Design)  # its margin as if no run had finished
    notes: tuple[str, ...] = ()  # lines on cells that are the same run, and on arms that are tuned with fewer settings

    @property
    def folder(self) -> Path:
        """Folder of the sweep."""
        return OutputFolder(self.output).sweeps / self.name

    @property
    def configs(self) -> list[RunConfig]:
        """The configuration of each run of the command, repetitions included."""
        runs = {planned.fingerprint: planned.run for planned in self.runs}
        return [runs[cell] for cell in self.cells]

    @property
    def folders(self) -> list[RunFolder]:
        """The runs' folders."""
        return [planned.folder for planned in self.runs]


def make_plan(configs: Sequence[RunConfig], lookup: Lookup | None = None, declared: Declared | None = None) -> Plan:
    """Check the data of every run, name the runs and find the keys that vary; nothing is written.

    Args:
        configs: of the runs.
        lookup: has located their data already, if given.
        declared: where in a study each of `configs` comes from.

    Raises:
        UserError: the data or the checkpoint of a run is missing, or the data does not match the configuration, or the
            folder of a run of the sweep is damaged.
    """
    plan = plan_of((lookup or Lookup()).resolved(configs), declared)
    _check_folders(plan)
    return plan


def plan_of(resolved: Sequence[RunConfig], declared: Declared | None = None) -> Plan:
    """Return the plan of resolved runs. Raises ConfigError as `design_of`."""
    design = design_of(declared, resolved) if declared else Design()
    output = Path(resolved[0].paths.output)
    cells = [fingerprint(run) for run in resolved]
    planned = {
        name: PlannedRun(run, name, RunFolder(OutputFolder(output).runs / name))
        for name, run in reversed(list(zip(cells, resolved, strict=True)))  # the first of equal cells stays
    }
    runs = tuple(planned[name] for name in dict.fromkeys(cells))
    axes = differing([identity(planned.run) for planned in runs])
    notes = (*collapses(resolved), *unequal_tuning(design.tune, resolved))
    return Plan(_sweep_name(runs), runs, tuple(cells), tuple(axes), output, design, notes)


def _check_folders(plan: Plan) -> None:
    """Raise UserError that lists the damaged folders of the plan and of earlier commands of its sweep."""
    earlier: list[RunFolder] = []
    with contextlib.suppress(Damaged):  # the first command, or a damaged plan, which is rewritten
        earlier = SweepFolder(plan.folder).runs()
    folders = {folder.path: folder for folder in (*plan.folders, *earlier)}.values()
    found = [damage for folder in folders if (damage := folder.damage())]
    if len(found) == 1:
        raise found[0]
    if found:
        what = f"{len(found)} of {len(folders)} run folders of {plan.name} are damaged, nothing was started"
        raise UserError(f"{what}\n  {indented(list(map(str, found)))}")


def checked_costs(plan: Plan, check: Callable[[Sequence[RunConfig]], list[RunCost | UserError]]) -> dict[str, RunCost]:
    """Return fingerprint -> cost of the new runs, counted by `check`.

    Raises:
        UserError: some runs cannot be built.
    """
    answers = check_new(plan, check)
    names = dict(zip((run.fingerprint for run in plan.runs), run_names([run.run for run in plan.runs]), strict=True))
    bad = [(names[name], str(answer)) for name, answer in answers.items() if isinstance(answer, UserError)]
    if bad:
        raise refusal(bad, len(plan.runs))
    return {name: answer for name, answer in answers.items() if not isinstance(answer, UserError)}


def check_new(
    plan: Plan, check: Callable[[Sequence[RunConfig]], list[RunCost | UserError]]
) -> dict[str, RunCost | UserError]:
    """Return fingerprint -> cost, or the build error, of the new runs; each cell is built once, whatever its seeds."""
    new = {planned.fingerprint: planned.run for planned in plan.runs if planned.folder.state() is RunState.new}
    groups = {name: group(run) for name, run in new.items()}
    cells = {groups[name]: run for name, run in new.items()}
    answers = dict(zip(cells, check(list(cells.values())) if cells else [], strict=True))
    return {name: answers[groups[name]] for name in new}


def freeze(plan: Plan, costs: Mapping[str, RunCost]) -> None:
    """Create the folder of every new run (those in `costs`) with its frozen configuration, the only one read later."""
    code = current_code(plan.output)
    for planned in plan.runs:
        if planned.fingerprint in costs:
            record = _record(plan, planned, code, costs[planned.fingerprint])
            head = planned.run.head
            source = Path(head.file).read_bytes() if isinstance(head, FileHeadConfig) else None
            planned.folder.create(record, OmegaConf.to_yaml(record.config), source)
    with FileLock(plan.folder / "plan.lock"):  # two commands may write it at the same time
        atomic_files.write_json(plan.folder / SWEEP_PLAN, _summary(plan, code))


def _record(plan: Plan, planned: PlannedRun, code: dict[str, Any], cost: RunCost) -> RunRecord:
    values = identity(planned.run)
    options = [key for key in values if key.startswith("head.")]
    summary = [key for key in keys_with(SUMMARY) if key in without_neutral(values)]
    shown = {key: values[key] for key in dict.fromkeys((*summary, *options, *plan.axes)) if key in values}
    config = nested(planned.run)
    return RunRecord(
        fingerprint=planned.fingerprint,
        group=group(planned.run),
        name=run_name(values, plan.axes),
        sweep=plan.name,
        seed=planned.run.seed,
        config=config,
        parameters=shown,
        code=with_packages(code, config),
        cost=cost,
    )


def _summary(plan: Plan, code: dict[str, Any]) -> dict[str, Any]:
    """Return plan.json: runs of this and earlier commands, cells in the order of the grid, seeds ascending."""
    own = {planned.fingerprint: (group(planned.run), planned.run.seed) for planned in plan.runs}
    order = {cell: at for at, cell in enumerate(dict.fromkeys(cell for cell, _ in own.values()))}
    known = {name: (order[cell], seed) for name, (cell, seed) in (_earlier(plan) | own).items() if cell in order}
    axes = [axis for axis in plan.axes if axis != "seed"]
    axes += ["seed"] * (len({seed for _, seed in known.values()}) > 1)
    return {
        "name": plan.name,
        "axes": axes,
        "design": asdict(_design(plan)),
        "code": code,
        "commands": list(dict.fromkeys((*_earlier_commands(plan), redacted(_command())))),
        "runs": sorted(known, key=known.__getitem__),
    }


def _command() -> str:
    """Return the command that this process executes; the entry point of the package has several paths."""
    program, *words = sys.argv
    is_package = Path(program).name in ("headsweep", "__main__.py")
    return shlex.join([*(("headsweep", "train") if is_package else ("python", program)), *words])


def _design(plan: Plan) -> Design:
    """Return what the study of this command declares, and what it does not as an earlier command declared it."""
    earlier, runs = Design(), {folder.path: folder for folder in plan.folders}
    with contextlib.suppress(Damaged):  # as in _earlier
        sweep = SweepFolder(plan.folder)
        earlier = sweep.design()
        runs |= {folder.path: folder for folder in sweep.runs()}
    return continued(earlier, plan.design, sum(folder.result() is not None for folder in runs.values()))


def _earlier_commands(plan: Plan) -> list[str]:
    with contextlib.suppress(Damaged):  # as in _earlier
        return SweepFolder(plan.folder).commands()
    return []


def _earlier(plan: Plan) -> dict[str, tuple[str, int]]:
    """Return fingerprint -> (cell, seed) of the runs planned by earlier commands whose folders still exist."""
    with contextlib.suppress(Damaged):  # the first command, or a damaged plan, which is rewritten
        records = [folder.record() for folder in SweepFolder(plan.folder).runs()]
        return {record.fingerprint: (record.group, record.seed) for record in records}
    return {}


def _sweep_name(runs: Sequence[PlannedRun]) -> str:
    """Return a name that depends on the cells alone, so that more seeds stay in the same sweep."""
    cells = sorted({group(planned.run) for planned in runs})
    digest = hashlib.sha256("".join(cells).encode()).hexdigest()[:8]
    first = runs[0].run
    return f"{first.dataset.name}-{first.model.name}-{digest}"
