"""The plan: the expanded, checked list of runs, each frozen in its folder before anything starts (law 3)."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import OmegaConf

from headsweep.config import DatasetConfig, ModelConfig, RunConfig
from headsweep.credentials import redacted
from headsweep.data import locate
from headsweep.errors import ConfigError, UserError
from headsweep.plan.fingerprint import fingerprint, group, identity
from headsweep.plan.git_state import code_version
from headsweep.plan.same_runs import check_distinct
from headsweep.tracking import atomic_files
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder, RunRecord, RunState
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged

# The keys by which people know a run, whether a sweep varies them or not.
IDENTITY_KEYS = (
    "model.name",
    "head.name",
    "heads",
    "dataset.name",
    "dataset.image_size",
    "optimizer.name",
    "optimizer.lr",
    "optimizer.weight_decay",
    "batch_size",
    "duration",
    "decorrelation",
    "seed",
)

MOST_SHOWN = 10  # bad cells that are named

Cost = dict[str, int]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan and the folder that is its home."""

    run: RunConfig
    fingerprint: str
    folder: RunFolder


@dataclass(frozen=True)
class Plan:
    """The runs of one command, in the order of the grid, without repetitions."""

    name: str
    runs: tuple[PlannedRun, ...]
    cells: tuple[str, ...]  # the fingerprint of each configuration of the command, repetitions included
    axes: tuple[str, ...]  # dotted keys in which the runs differ
    output: Path

    @property
    def folder(self) -> Path:
        """Where the sweep's table is put."""
        return OutputFolder(self.output).sweeps / self.name

    @property
    def folders(self) -> list[RunFolder]:
        """The runs' folders."""
        return [planned.folder for planned in self.runs]


def make_plan(configs: Sequence[RunConfig]) -> Plan:
    """Look at the data of every run, name the runs and find in what they differ; nothing is written.

    Raises:
        UserError: the data or the checkpoint of a run is absent, or the data is not what the configuration says; or
            the folder of a run, or of another one of the sweep, is damaged.
    """
    resolved = resolve(configs)
    names = run_names(configs)
    bad = [(name, str(run)) for name, run in zip(names, resolved, strict=True) if isinstance(run, UserError)]
    if bad:
        raise refusal(bad, len(configs))
    plan = plan_of([run for run in resolved if isinstance(run, RunConfig)])
    _check_folders(plan)
    return plan


def resolve(configs: Sequence[RunConfig]) -> list[RunConfig | UserError]:
    """Each run with what only its data and its checkpoint can say, or why they cannot."""
    located: list[tuple[DatasetConfig, DatasetConfig | UserError]] = []  # each data set is looked at once
    digests: dict[str | None, str | None] = {}
    return [_resolve(config, located, digests) for config in configs]


def plan_of(resolved: Sequence[RunConfig]) -> Plan:
    """The plan of runs whose data has been looked at. Raises ConfigError as `check_distinct`."""
    check_distinct(resolved)
    output = Path(resolved[0].paths.output)
    cells = [fingerprint(run) for run in resolved]
    planned = {
        name: PlannedRun(run, name, RunFolder(OutputFolder(output).runs / name))
        for name, run in reversed(list(zip(cells, resolved, strict=True)))  # the first of equal cells stays
    }
    runs = tuple(planned[name] for name in dict.fromkeys(cells))
    return Plan(_sweep_name(runs), runs, tuple(cells), _axes([identity(planned.run) for planned in runs]), output)


def _check_folders(plan: Plan) -> None:
    """Raise UserError, which names the damaged among the folders of the plan and of its sweep's earlier commands."""
    earlier: list[RunFolder] = []
    with contextlib.suppress(Damaged):  # the first command, or a damaged plan: it is written anew
        earlier = SweepFolder(plan.folder).runs()
    folders = {folder.path: folder for folder in (*plan.folders, *earlier)}.values()
    found = [damage for folder in folders if (damage := folder.damage())]
    if len(found) == 1:
        raise found[0]
    if found:
        lines = [f"\n  {damage}" for damage in found[:MOST_SHOWN]]
        lines += [f"\n  and {len(found) - MOST_SHOWN} more"] * (len(found) > MOST_SHOWN)
        what = f"{len(found)} of {len(folders)} run folders of {plan.name} are damaged, nothing was started"
        raise UserError(what + "".join(lines))


def refusal(bad: Sequence[tuple[str, str]], cells: int) -> UserError:
    """Why a sweep is not started: the (name, mistake) of its bad cells, up to ten of them, then their number."""
    mistakes = {mistake for _, mistake in bad}
    if len(mistakes) == 1 and len(bad) in (1, cells):
        (mistake,) = mistakes
        return UserError(mistake if len(bad) == cells else f"{mistake} (1 of {cells} cells: {bad[0][0]})")
    lines = [f"\n  {name}: {mistake}" for name, mistake in bad[:MOST_SHOWN]]
    lines += [f"\n  and {len(bad) - MOST_SHOWN} more"] * (len(bad) > MOST_SHOWN)
    return UserError(f"{len(bad)} of {cells} cells are not valid, nothing was started{''.join(lines)}")


def checked_costs(plan: Plan, check: Callable[[Sequence[RunConfig]], list[Cost | UserError]]) -> dict[str, Cost]:
    """Fingerprint -> cost of the runs that are new, as `check` counts it.

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
    plan: Plan, check: Callable[[Sequence[RunConfig]], list[Cost | UserError]]
) -> dict[str, Cost | UserError]:
    """Fingerprint -> cost, or why it cannot be built, of the runs that are new; seeds of one cell are built once."""
    new = {planned.fingerprint: planned.run for planned in plan.runs if planned.folder.state() is RunState.new}
    groups = {name: group(run) for name, run in new.items()}
    cells = {groups[name]: run for name, run in new.items()}
    answers = dict(zip(cells, check(list(cells.values())) if cells else [], strict=True))
    return {name: answers[groups[name]] for name in new}


def freeze(plan: Plan, costs: Mapping[str, Cost]) -> None:
    """Give every new run, whose cost is in `costs`, a folder with its frozen configuration; only that is read later."""
    code = code_version()
    for planned in plan.runs:
        if planned.fingerprint in costs:
            record = _record(plan, planned, code, costs[planned.fingerprint])
            planned.folder.create(record, OmegaConf.to_yaml(OmegaConf.structured(planned.run)))
    with FileLock(plan.folder / "plan.lock"):  # two commands may add to it at a time
        atomic_files.write_json(plan.folder / "plan.json", _summary(plan, code))


def code_change(folders: Sequence[RunFolder]) -> str | None:
    """One line if some of the runs were begun with another commit than the one that would go on; None if none was."""
    now = code_version()["commit"]
    begun = [
        folder.record().code.get("commit")
        for folder in folders
        if folder.state() in (RunState.partial, RunState.failed)
    ]
    others = Counter(commit for commit in begun if commit != now)
    if not others:
        return None
    before = ", ".join(f"{count} with code {_short(commit)}" for commit, count in others.items())
    return (
        f"{others.total()} of {len(folders)} runs were begun with other code than {_short(now)}: {before}; "
        "they go on with this one"
    )


def _short(commit: str | None) -> str:
    return commit[:7] if commit else "of no commit"


def _record(plan: Plan, planned: PlannedRun, code: dict[str, Any], cost: Cost) -> RunRecord:
    values = identity(planned.run)
    options = [key for key in values if key.startswith("head.")]
    shown = {key: values[key] for key in dict.fromkeys((*IDENTITY_KEYS, *options, *plan.axes)) if key in values}
    return RunRecord(
        fingerprint=planned.fingerprint,
        group=group(planned.run),
        name=_run_name(values, plan.axes),
        sweep=plan.name,
        seed=planned.run.seed,
        config=OmegaConf.to_container(OmegaConf.structured(planned.run), enum_to_str=True),  # type: ignore[arg-type]
        parameters=shown,
        code=code,
        cost=cost,
    )


def _summary(plan: Plan, code: dict[str, Any]) -> dict[str, Any]:
    """The command's runs and those of earlier commands: cells in the order of the grid, seeds ascending."""
    own = {planned.fingerprint: (group(planned.run), planned.run.seed) for planned in plan.runs}
    order = {cell: at for at, cell in enumerate(dict.fromkeys(cell for cell, _ in own.values()))}
    known = {name: (order[cell], seed) for name, (cell, seed) in (_earlier(plan) | own).items() if cell in order}
    axes = [axis for axis in plan.axes if axis != "seed"]
    axes += ["seed"] * (len({seed for _, seed in known.values()}) > 1)
    return {
        "name": plan.name,
        "axes": axes,
        "code": code,
        "commands": list(dict.fromkeys((*_earlier_commands(plan), redacted(shlex.join(["python", *sys.argv]))))),
        "runs": sorted(known, key=known.__getitem__),
    }


def _earlier_commands(plan: Plan) -> list[str]:
    with contextlib.suppress(Damaged):  # as below
        return SweepFolder(plan.folder).commands()
    return []


def _earlier(plan: Plan) -> dict[str, tuple[str, int]]:
    """Fingerprint -> cell and seed of the sweep's runs that were planned before and whose folders are still there."""
    with contextlib.suppress(Damaged):  # the first command, or a damaged plan: it is written anew
        records = [folder.record() for folder in SweepFolder(plan.folder).runs()]
        return {record.fingerprint: (record.group, record.seed) for record in records}
    return {}


def _resolve(
    config: RunConfig,
    located: list[tuple[DatasetConfig, DatasetConfig | UserError]],
    digests: dict[str | None, str | None],
) -> RunConfig | UserError:
    try:
        dataset = _locate(config.dataset, located)
        if isinstance(dataset, UserError):
            return dataset
        return replace(config, dataset=dataset, model=_with_digest(config.model, digests))
    except UserError as error:
        return error


def _locate(
    dataset: DatasetConfig, known: list[tuple[DatasetConfig, DatasetConfig | UserError]]
) -> DatasetConfig | UserError:
    """Look at each data set once, however many runs share it."""
    for given, answer in known:
        if given == dataset:
            return answer
    try:
        known.append((dataset, locate.resolve(dataset)))
    except UserError as error:
        known.append((dataset, error))
    return known[-1][1]


def _with_digest(model: ModelConfig, known: dict[str | None, str | None]) -> ModelConfig:
    """The model with its checkpoint's content as part of its identity; where the file lies is none."""
    if model.checkpoint is None:
        return model
    if model.checkpoint not in known:
        known[model.checkpoint] = _digest(model.checkpoint)
    return replace(model, checkpoint_digest=known[model.checkpoint])


def _digest(checkpoint: str) -> str:
    try:
        return hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError("model.checkpoint", checkpoint, f"cannot be read: {error.strerror or error}") from error


def _axes(values: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The keys in which identities differ."""
    keys = dict.fromkeys(key for value in values for key in value)
    # An option that only some heads have is no axis by that alone.
    return tuple(key for key in keys if len({str(value[key]) for value in values if key in value}) > 1)


def _sweep_name(runs: Sequence[PlannedRun]) -> str:
    """The same for the same cells, so that more seeds stay in the same sweep."""
    cells = sorted({group(planned.run) for planned in runs})
    digest = hashlib.sha256("".join(cells).encode()).hexdigest()[:8]
    first = runs[0].run
    return f"{first.dataset.name.value}-{first.model.name}-{digest}"


def run_names(runs: Sequence[RunConfig]) -> list[str]:
    """What people call each of the runs beside the others."""
    values = [identity(run) for run in runs]
    axes = _axes(values)
    return [_run_name(value, axes) for value in values]


def _run_name(values: dict[str, Any], axes: Sequence[str]) -> str:
    named = {"head.name", "heads", "model.name", "dataset.name", "seed"}
    head = f"{values['head.name']}{values['heads']}-{values['model.name']}-{values['dataset.name']}"
    others = [f"{key.rpartition('.')[2]}={values[key]}" for key in axes if key not in named and key in values]
    return "-".join([head, *others, f"seed{values['seed']}"])
