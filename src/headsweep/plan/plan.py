"""The plan: the expanded, checked list of runs, each frozen in its folder before any run starts (invariant 3)."""

from __future__ import annotations

import contextlib
import hashlib
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import OmegaConf

from headsweep.config import DatasetConfig, FileHeadConfig, ModelConfig, RunConfig
from headsweep.config.keys import keys_with, nested, without_neutral
from headsweep.config.records.head import KnnConfig
from headsweep.config.traits import SUMMARY
from headsweep.credentials import redacted
from headsweep.data import locate
from headsweep.errors import ConfigError, UserError
from headsweep.plan.design import Declared, continued, design_of, unequal_tuning
from headsweep.plan.fingerprint import differing, fingerprint, group, identity
from headsweep.plan.git_state import code_version
from headsweep.plan.packages import packages_used
from headsweep.plan.same_runs import collapses
from headsweep.plan.uncommitted import with_changes
from headsweep.text import plural
from headsweep.tracking import atomic_files
from headsweep.tracking.cost import RunCost
from headsweep.tracking.design import Design
from headsweep.tracking.output_folder import SWEEP_PLAN, OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord, RunState, code_name
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged

MOST_SHOWN = 10  # invalid cells that are listed


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


class Lookup:
    """Reads each data set and each checkpoint once, however many runs of a command share it."""

    def __init__(self) -> None:
        self._located: list[tuple[DatasetConfig, DatasetConfig | UserError]] = []
        self._digests: dict[str | None, str | None] = {}
        self._pretrained: dict[str, str | ConfigError | None] = {}  # model -> file of timm's weights

    def resolve(self, configs: Sequence[RunConfig]) -> list[RunConfig | UserError]:
        """Return each run with what its data and its checkpoint fill in, or why they cannot."""
        return [_resolve(self._with_file(config), self._located, self._digests) for config in configs]

    def _with_file(self, config: RunConfig) -> RunConfig | ConfigError:
        """Fill in the file of pretrained weights."""
        model = config.model
        if not model.pretrained or model.checkpoint is not None:
            return config
        if model.name not in self._pretrained:
            self._pretrained[model.name] = _pretrained_file(model.name)
        file = self._pretrained[model.name]
        return file if isinstance(file, ConfigError) else replace(config, model=replace(model, checkpoint=file))

    def resolved(self, configs: Sequence[RunConfig]) -> list[RunConfig]:
        """Return the same for runs that all must be valid. Raises UserError, which names those that are not."""
        found = self.resolve(configs)
        names = run_names(configs)
        bad = [(name, str(run)) for name, run in zip(names, found, strict=True) if isinstance(run, UserError)]
        if bad:
            raise refusal(bad, len(configs))
        return [run for run in found if isinstance(run, RunConfig)]


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
        lines = [f"\n  {damage}" for damage in found[:MOST_SHOWN]]
        lines += [f"\n  and {len(found) - MOST_SHOWN} more"] * (len(found) > MOST_SHOWN)
        what = f"{len(found)} of {len(folders)} run folders of {plan.name} are damaged, nothing was started"
        raise UserError(what + "".join(lines))


def refusal(bad: Sequence[tuple[str, str]], cells: int) -> UserError:
    """Return the error for a sweep with invalid cells: up to ten (name, message) pairs, then how many more."""
    mistakes = {mistake for _, mistake in bad}
    if len(mistakes) == 1 and len(bad) in (1, cells):
        (mistake,) = mistakes
        return UserError(mistake if len(bad) == cells else f"{mistake} (1 of {cells} cells: {bad[0][0]})")
    lines = [f"\n  {name}: {mistake}" for name, mistake in bad[:MOST_SHOWN]]
    lines += [f"\n  and {len(bad) - MOST_SHOWN} more"] * (len(bad) > MOST_SHOWN)
    return UserError(f"{len(bad)} of {cells} cells are not valid, nothing was started{''.join(lines)}")


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


def begin_with_current_code(folders: Sequence[RunFolder], output: Path, say: Callable[[str], object]) -> None:
    """Record the current code in runs that are about to start; `say` a line if some were started with other code."""
    if change := code_change(folders):
        say(change)
    record_code(folders, output)


def current_code(output: Path) -> dict[str, Any]:
    """Return the current code version, whose uncommitted changes are stored in an output folder."""
    return with_changes(code_version(), output)


def record_code(folders: Sequence[RunFolder], output: Path, now: Mapping[str, Any] | None = None) -> None:
    """Record the current code in runs that are about to start, or that it was continued with, where they have begun.

    `now` is that code, if it is known.

    They may have been planned by another version, as the command was stopped before they started. Runs that another
    process trains at the moment are left as they are.
    """
    now = dict(now or current_code(output))
    for folder in (folder for folder in folders if folder.state() is not RunState.running):
        record = folder.record()
        packages = packages_used(record.config)
        code = now | ({"packages": packages} if packages else {})
        before = {key: value for key, value in record.code.items() if key != "continued"}
        if (code_name(before), record.packages) == (code_name(code), packages):
            continue
        if folder.checkpoint.exists():
            earlier = record.code.get("continued", "").split(", ")
            names = dict.fromkeys([*earlier, " ".join([code_name(code), *packages.values()])])
            code = record.code | {"continued": ", ".join(filter(None, names))}
        folder.replace_record(replace(record, code=code))


def code_change(folders: Sequence[RunFolder]) -> str | None:
    """Return one line if some runs were started with another commit or other packages than the current, else None."""
    now = _short(code_version())
    begun = [folder.record() for folder in folders if folder.state() in (RunState.partial, RunState.failed)]
    others = Counter(code for record in begun if (code := _short(record.code)) != now)
    if not others:
        return _package_change(begun)
    before = ", ".join(f"{count} with code {code}" for code, count in others.items())
    return (
        f"{others.total()} of {len(folders)} runs were started with other code than {now}: {before}; "
        "they resume with the current code"
    )


def _package_change(begun: Sequence[RunRecord]) -> str | None:
    others = Counter(
        f"{name} {version}, now {current.get(name, 'not installed')}"
        for record in begun
        for current in [packages_used(record.config)]
        for name, version in record.packages.items()
        if current.get(name) != version
    )
    if not others:
        return None
    before = "; ".join(f"{plural(runs, 'run')} with {change}" for change, runs in others.items())
    return f"started with another version of a package: {before}; they resume with the current one"


def _short(code: Mapping[str, Any]) -> str:
    commit = code.get("commit")
    return commit[:7] if commit else code_name(code) if "digest" in code else "without a commit"


def _record(plan: Plan, planned: PlannedRun, code: dict[str, Any], cost: RunCost) -> RunRecord:
    values = identity(planned.run)
    options = [key for key in values if key.startswith("head.")]
    summary = [key for key in keys_with(SUMMARY) if key in without_neutral(values)]
    shown = {key: values[key] for key in dict.fromkeys((*summary, *options, *plan.axes)) if key in values}
    config = nested(planned.run)
    packages = packages_used(config)
    return RunRecord(
        fingerprint=planned.fingerprint,
        group=group(planned.run),
        name=_run_name(values, plan.axes),
        sweep=plan.name,
        seed=planned.run.seed,
        config=config,
        parameters=shown,
        code=code | ({"packages": packages} if packages else {}),
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


def _pretrained_file(name: str) -> str | ConfigError | None:
    from headsweep.models.pretrained import pretrained_file  # imports timm, which takes seconds

    try:
        file = pretrained_file(name)
    except ConfigError as error:
        return error
    return None if file is None else str(file)


def _resolve(
    config: RunConfig | ConfigError,
    located: list[tuple[DatasetConfig, DatasetConfig | UserError]],
    digests: dict[str | None, str | None],
) -> RunConfig | UserError:
    if isinstance(config, ConfigError):
        return config
    try:
        dataset = _locate(config.dataset, located)
        if isinstance(dataset, UserError):
            return dataset
        _check_images(config, locate.most_training_images(dataset))
        return replace(config, dataset=dataset, model=_with_digest(config.model, digests))
    except UserError as error:
        return error


def _check_images(config: RunConfig, most: int | None) -> None:
    """Raise ConfigError for a batch, or a number of neighbours, that is larger than the training split."""
    key, size = ("head.k", config.head.k) if isinstance(config.head, KnnConfig) else ("batch_size", config.batch_size)
    if most is not None and size > most:
        raise ConfigError(key, size, f"expected at most {most}, the number of training images")


def _locate(
    dataset: DatasetConfig, known: list[tuple[DatasetConfig, DatasetConfig | UserError]]
) -> DatasetConfig | UserError:
    """Resolve each data set once, however many runs share it."""
    for given, answer in known:
        if given == dataset:
            return answer
    try:
        known.append((dataset, locate.resolve(dataset)))
    except UserError as error:
        known.append((dataset, error))
    return known[-1][1]


def _with_digest(model: ModelConfig, known: dict[str | None, str | None]) -> ModelConfig:
    """Return the model with the digest of its checkpoint: the content is part of the identity, the path is not."""
    if model.checkpoint is None:
        return model
    if model.checkpoint not in known:
        known[model.checkpoint] = checkpoint_digest(model.checkpoint)
    return replace(model, checkpoint_digest=known[model.checkpoint])


def checkpoint_digest(checkpoint: str) -> str:
    """Return the SHA-256 of a file of weights. Raises ConfigError if it cannot be read."""
    try:
        return hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            "model.checkpoint", checkpoint, f"expected a readable file, found: {error.strerror or error}"
        ) from error


def _sweep_name(runs: Sequence[PlannedRun]) -> str:
    """Return a name that depends on the cells alone, so that more seeds stay in the same sweep."""
    cells = sorted({group(planned.run) for planned in runs})
    digest = hashlib.sha256("".join(cells).encode()).hexdigest()[:8]
    first = runs[0].run
    return f"{first.dataset.name}-{first.model.name}-{digest}"


def run_names(runs: Sequence[RunConfig]) -> list[str]:
    """Return a readable name of each run that distinguishes it from the others."""
    values = [identity(run) for run in runs]
    axes = differing(values)
    return [_run_name(value, axes) for value in values]


def _run_name(values: dict[str, Any], axes: Sequence[str]) -> str:
    named = {"head.name", "heads", "model.name", "dataset.name", "seed"}
    head = f"{values['head.name']}{values['heads']}-{values['model.name']}-{values['dataset.name']}"
    others = [f"{key.rpartition('.')[2]}={values[key]}" for key in axes if key not in named and key in values]
    return "-".join([head, *others, f"seed{values['seed']}"])
