"""`headsweep export`: write weights for other programs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import OUTPUT, commands
from headsweep.errors import UserError
from headsweep.tracking.output_folder import OutputFolder

if TYPE_CHECKING:
    from torch import Tensor

    from headsweep.models import Classifier

RUNS = OutputFolder(OUTPUT).runs
SHORTEST_FINGERPRINT = 4


@commands.command()
@click.argument("source")
@click.option(
    "--format", "layout", type=click.Choice(["upstream", "headsweep"]), required=True, help="Parameter names."
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write.")
@click.option("--model", "name", help="Model of a checkpoint file, e.g. seqattn8_cct_7_3x1_32. Not needed for a run.")
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=RUNS,
    show_default=True,
    help="Folder to search for fingerprints.",
)
@click.option(
    "--weights",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="Weights of a run: of its last epoch, or of the best epoch on held-out images.",
)
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
def export(source: str, layout: str, output: Path, name: str | None, runs: Path, weights: str, force: bool) -> None:
    """Write the weights of SOURCE to a file for other programs.

    SOURCE is the folder of a run, the fingerprint of a run or a prefix of it, or, with --model, a checkpoint file. If
    the run averages its weights, the averages are written. The file holds {"state_dict": ...}. Parameters have
    headsweep's names, or with --format upstream the names in the code that published the model (SeqAttention for
    pre_norm blocks, CCT for stream_norm).
    """
    if output.exists() and not force:
        raise UserError(f"{output} exists; give another --output, or --force to replace it")
    if name is not None and weights == "best":
        raise UserError(f"--weights best: with --model, {source} is a checkpoint file; give a run, or omit --weights")
    model = _model(source, runs, weights) if name is None else _named(Path(source), name)
    _write(output, _state_dict(model, layout))
    click.echo(f"{output}: {layout} state dict of {source}")


def _find_run(source: str, runs: Path) -> Path:
    """Return the folder of a run, given the folder or a fingerprint."""
    if Path(source).is_dir():
        return Path(source)
    if Path(source).is_file():
        raise UserError(f"{source} is a file: name its model with --model, e.g. --model cct_7_3x1_32")
    long_enough = len(source) >= SHORTEST_FINGERPRINT and "/" not in source
    found = sorted(folder for folder in runs.glob("*") if folder.name.startswith(source)) if long_enough else []
    if len(found) != 1:
        matches = f"{len(found)} runs" if found else "no run"
        raise UserError(f"{source}: no such folder or file, and {matches} of that fingerprint in {runs} (see --runs)")
    return found[0]


def _model(source: str, runs: Path, weights: str) -> Classifier:
    """Return the model of a run, with its "last" or "best" weights."""
    from headsweep.run.load_model import trained
    from headsweep.tracking.run_folder import RunFolder

    return trained(RunFolder(_find_run(source, runs)), best=weights == "best")


def _named(path: Path, name: str) -> Classifier:
    """Return the model of that name, with as many classes as the file has."""
    import timm

    from headsweep.models.registry import ENTRIES
    from headsweep.models.state_dicts import count_classes
    from headsweep.run.load_model import load_weights, weights_in

    if name not in ENTRIES:
        raise UserError(
            f"--model {name}: unknown; expected a model of headsweep, e.g. cct_7_3x1_32 or seqattn8_cct_7_3x1_32"
        )
    weights = weights_in(path)
    model = timm.create_model(name, num_classes=count_classes(weights))
    load_weights(model, weights, path)
    return model


def _state_dict(model: Classifier, layout: str) -> Mapping[str, Tensor]:
    from headsweep.heads import Head
    from headsweep.models.state_dicts import publish

    assert isinstance(model.head, Head), "a model that was just built has one"
    return publish(model.backbone, model.head) if layout == "upstream" else model.state_dict()


def _write(output: Path, state: Mapping[str, Tensor]) -> None:
    import torch

    from headsweep.tracking import atomic_files

    memory = io.BytesIO()  # on a full disk, torch.save to a file only reports "unexpected pos"
    torch.save({"state_dict": dict(state)}, memory)
    try:
        atomic_files.write_with(output, lambda file: file.write(memory.getbuffer()))
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from error
