"""Runs that tests train and look at."""

import json
import os
from pathlib import Path

from omegaconf import OmegaConf
from pytest import TempPathFactory
from torch import Tensor, load

from commands import TINY_RUN
from composing import compose_run
from digits import read_digits_once
from headsweep.config import HEADS, PROJECT_ROOT, HeadConfig, RunConfig
from headsweep.plan.plan import freeze, make_plan
from headsweep.run.train_run import preflight
from headsweep.tracking.cost import RunCost
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord

_COSTS: dict[str, RunCost] = {}

read_digits_once()


def shared(factory: TempPathFactory) -> Path:
    """A folder of all workers of pytest."""
    root = factory.getbasetemp()
    return root.parent if "PYTEST_XDIST_WORKER" in os.environ else root


def planned(output: Path, *overrides: str) -> RunFolder:
    """A tiny run that is planned and frozen in an output folder."""
    plan = make_plan([compose_run(*TINY_RUN, *overrides, f"paths.output={output}")])
    freeze(plan, {plan.runs[0].fingerprint: cost(plan.runs[0].run)})
    return plan.folders[0]


def default_head(name: str, **options: object) -> HeadConfig:
    """The head of `head=NAME`, without the time that composing a configuration takes."""
    given = OmegaConf.load(PROJECT_ROOT / "conf" / "head" / f"{name}.yaml")
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(HEADS[name].options), given, options))


def cost(run: RunConfig) -> RunCost:
    """What `preflight` counts, once a process for all runs of the same model on the same images."""
    key = repr((run.model, run.head, run.heads, run.dataset, run.backbone, run.tokens, run.classifier_norm))
    if key not in _COSTS:
        _COSTS[key] = preflight(run)
    return _COSTS[key]


def hand_made(output: Path, name: str, config: dict[str, object] | None = None, group: str = "g") -> RunFolder:
    """A run that no command has planned, with nothing but its name and some keys of its configuration."""
    folder = RunFolder(output / "runs" / name)
    folder.create(RunRecord(name, group, name, "s", 0, config or {}, {}, {}, {}), "seed: 0\n")
    return folder


def record_code(folder: RunFolder, code: dict[str, object]) -> None:
    """Change the version of the code in the record of a run."""
    path = folder.path / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": code}))


def weights(folder: RunFolder, part: str = "model") -> dict[str, Tensor]:
    """Those of the last checkpoint; with `state_dict_ema`, their average."""
    return load(folder.checkpoint, weights_only=True)[part]


def run_folders(output: Path) -> list[RunFolder]:
    """Of an output folder, by fingerprint."""
    return [RunFolder(path) for path in sorted((output / "runs").iterdir())]


def by_seed(output: Path) -> dict[int, RunFolder]:
    return {folder.record().seed: folder for folder in run_folders(output)}
