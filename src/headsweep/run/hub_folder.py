"""The model of a run as a folder for the Hugging Face hub, which timm loads: configuration, weights and model card."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save

from headsweep.config import RunConfig
from headsweep.errors import UserError
from headsweep.models import Classifier
from headsweep.models.configured import NAME, architecture
from headsweep.plan.frozen import frozen
from headsweep.report.read.cells import Cell, read_cells, skip_damaged
from headsweep.run.load_model import trained
from headsweep.run.model_card import Subject, model_card
from headsweep.tracking import atomic_files
from headsweep.tracking.run_folder import RunFolder, runs_in
from headsweep.tracking.typed_files import Damaged

CARD, CONFIG, WEIGHTS = "README.md", "config.json", "model.safetensors"
_ORIGIN = "headsweep"  # key of the configuration: which run the weights are of
FROM_SCRATCH, FROM_OTHERS = "mit", "other"  # default licence of weights


def check_place(folder: Path, force: bool) -> None:
    """Raise UserError if the folder must not be replaced: it exists, or with `force` has files of another origin."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give another --output")
    others = (
        sorted(path.name for path in folder.iterdir() if path.name not in (CARD, CONFIG, WEIGHTS))
        if folder.is_dir()
        else []
    )
    if others:
        raise UserError(f"{folder} holds other files (e.g. {others[0]}); give another --output")
    if folder.exists() and any(folder.iterdir()) and not force:
        raise UserError(f"{folder} exists; give another --output, or --force to replace it")
    if folder.exists() and any(folder.iterdir()) and not _is_export(folder):
        raise UserError(f"{folder} is not a model that headsweep exported; give another --output")


def _is_export(folder: Path) -> bool:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and _ORIGIN in config


def write(run: RunFolder, best: bool, output: Path, licence: str | None) -> None:
    """Write the folder of a finished run, and check that timm loads the same weights from it.

    Args:
        run: the run; with a frozen backbone, the whole model is written.
        best: its best weights instead of the last ones.
        output: the folder; what is there is replaced.
        licence: identifier of the hub; by default that of headsweep, for weights that started from others `other`.

    Raises:
        UserError: the weights are missing, or the folder does not load.
        OSError: the folder cannot be written.
    """
    config, model = frozen(run), trained(run, best)
    result = run.result()
    assert result is not None, "the run has finished"
    weights = "best" if best else "last"
    default = FROM_SCRATCH if config.model.checkpoint is None else FROM_OTHERS
    card = _card(run, lambda cell: Subject(config, run.record(), result, cell, weights, licence or default))

    def fill(folder: Path) -> None:
        tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        (folder / WEIGHTS).write_bytes(save(tensors, metadata={"format": "pt"}))
        (folder / CONFIG).write_text(json.dumps(_config(config, run, model), indent=2) + "\n")
        (folder / CARD).write_text(card, encoding="utf-8")
        _check(folder, model)
        for path in folder.iterdir():
            atomic_files.sync(path)

    output.parent.mkdir(parents=True, exist_ok=True)
    atomic_files.replace_folder(output, fill)


def _card(run: RunFolder, subject: Callable[[Cell], Subject]) -> str:
    """Return the card of the run with the runs that differ from it in the seed alone, as far as they can be read."""
    group = run.record().group

    def is_alike(folder: RunFolder) -> bool:
        try:
            return folder.record().group == group
        except Damaged:
            return False

    alike = [folder for folder in runs_in(run.output.path) if is_alike(folder)] or [run]
    return skip_damaged(alike, lambda folders, damages: model_card(subject(read_cells(folders)[0])))


def _config(run: RunConfig, folder: RunFolder, model: Classifier) -> dict[str, Any]:
    """Return config.json as timm reads it, and where the weights are from."""
    data, record = run.dataset, folder.record()
    return {
        "architecture": NAME,
        "num_classes": data.num_classes,
        "num_features": model.num_features,
        "model_args": architecture(run),
        "pretrained_cfg": {
            "input_size": [data.channels, data.image_size, data.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": data.crop_ratio,
            "crop_mode": "center",
            "mean": list(data.mean),
            "std": list(data.std),
            "num_classes": data.num_classes,
            "pool_size": None,
            "first_conv": None,
            "classifier": "head.classifier",
            "custom_load": False,
        },
        _ORIGIN: {"version": version("headsweep"), "fingerprint": record.fingerprint, "seed": record.seed},
    }


def _check(folder: Path, model: Classifier) -> None:
    """Raise UserError unless timm loads the weights from the folder."""
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert isinstance(loaded, torch.nn.Module)
    found, expected = loaded.state_dict(), model.state_dict()
    wrong = sorted(
        name for name in found.keys() | expected.keys() if not _is_equal(found.get(name), expected.get(name))
    )
    if wrong:
        raise UserError(
            f"--format hf: timm loads other weights than were written, e.g. {wrong[0]}: a defect of headsweep"
        )


def _is_equal(first: torch.Tensor | None, second: torch.Tensor | None) -> bool:
    return first is not None and second is not None and torch.equal(first, second)
