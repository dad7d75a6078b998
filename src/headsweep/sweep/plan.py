"""The plan: the expanded, checked list of runs, each frozen in its folder before anything starts (law 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from headsweep.config import DatasetConfig, ModelConfig, RunConfig, parse
from headsweep.data import locate
from headsweep.errors import ConfigError, UserError
from headsweep.sweep.code_version import code_version
from headsweep.sweep.fingerprint import fingerprint, group, identity
from headsweep.tracking import durable
from headsweep.tracking.run_folder import RunFolder, RunRecord

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
        return self.output / "sweeps" / self.name

    @property
    def folders(self) -> list[RunFolder]:
        """The runs' folders."""
        return [planned.folder for planned in self.runs]


def make_plan(configs: Sequence[RunConfig]) -> Plan:
    """Look at the data of every run, name the runs and find in what they differ; nothing is written.

    Raises:
        UserError: the data or the checkpoint of a run is absent, or the data is not what the configuration says.
    """
    output = Path(configs[0].paths.output)
    located: list[tuple[DatasetConfig, DatasetConfig]] = []
    planned: dict[str, PlannedRun] = {}
    cells = []
    for config in configs:
        run = replace(config, dataset=_locate(config.dataset, located), model=_with_digest(config.model))
        cells.append(fingerprint(run))
        planned.setdefault(cells[-1], PlannedRun(run, cells[-1], RunFolder(output / "runs" / cells[-1])))
    runs = tuple(planned.values())
    return Plan(_sweep_name(runs), runs, tuple(cells), _axes(runs), output)


def freeze(plan: Plan, costs: Mapping[str, Cost]) -> None:
    """Give every new run, whose cost is in `costs`, a folder with its frozen configuration; only that is read later."""
    code = code_version()
    for planned in plan.runs:
        if planned.fingerprint in costs:
            record = _record(plan, planned, code, costs[planned.fingerprint])
            planned.folder.create(record, OmegaConf.to_yaml(OmegaConf.structured(planned.run)))
    durable.write_json(plan.folder / "plan.json", _summary(plan, code))


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
    return {"name": plan.name, "axes": plan.axes, "code": code, "runs": [run.fingerprint for run in plan.runs]}


def _locate(dataset: DatasetConfig, known: list[tuple[DatasetConfig, DatasetConfig]]) -> DatasetConfig:
    """Look at each data set once, however many runs share it."""
    for given, resolved in known:
        if given == dataset:
            return resolved
    known.append((dataset, locate.resolve(dataset)))
    return known[-1][1]


def _with_digest(model: ModelConfig) -> ModelConfig:
    """The model with its checkpoint's content as part of its identity; where the file lies is none."""
    if model.checkpoint is None:
        return model
    try:
        digest = hashlib.sha256(Path(model.checkpoint).read_bytes())
    except OSError as error:
        raise ConfigError("model.checkpoint", model.checkpoint, f"cannot be read: {error.strerror or error}") from error
    return replace(model, checkpoint_digest=digest.hexdigest())


def _axes(runs: Sequence[PlannedRun]) -> tuple[str, ...]:
    values = [identity(planned.run) for planned in runs]
    keys = dict.fromkeys(key for value in values for key in value)
    # An option that only some heads have is no axis by that alone.
    return tuple(key for key in keys if len({str(value[key]) for value in values if key in value}) > 1)


def _sweep_name(runs: Sequence[PlannedRun]) -> str:
    """The same for the same cells, so that more seeds stay in the same sweep."""
    cells = sorted({group(planned.run) for planned in runs})
    digest = hashlib.sha256("".join(cells).encode()).hexdigest()[:8]
    first = runs[0].run
    return f"{first.dataset.name.value}-{first.model.name}-{digest}"


def _run_name(values: dict[str, Any], axes: Sequence[str]) -> str:
    named = {"head.name", "heads", "model.name", "dataset.name", "seed"}
    head = f"{values['head.name']}{values['heads']}-{values['model.name']}-{values['dataset.name']}"
    others = [f"{key.rpartition('.')[2]}={values[key]}" for key in axes if key not in named and key in values]
    return "-".join([head, *others, f"seed{values['seed']}"])


def frozen(folder: RunFolder) -> RunConfig:
    """The configuration that a run was planned with.

    Raises:
        UserError: the run's folder is damaged.
    """
    try:
        config = OmegaConf.load(folder.config)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder.config} cannot be read ({error}); remove the run's folder") from error
    return parse(config)  # type: ignore[arg-type]
