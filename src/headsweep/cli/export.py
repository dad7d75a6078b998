"""Weights for others to load."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import OUTPUT, commands
from headsweep.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from headsweep.models import Classifier

RUNS = OUTPUT / "runs"
SHORTEST_FINGERPRINT = 4


@commands.command()
@click.argument("source")
@click.option("--format", "layout", type=click.Choice(["upstream", "headsweep"]), required=True, help="Names to use.")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File to write.")
@click.option(
    "--model", "name", help="What a checkpoint file holds, e.g. seqattn8_cct_7_3x1_32; a run knows it itself."
)
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=RUNS,
    show_default=True,
    help="Folder in which fingerprints are looked up.",
)
@click.option(
    "--weights",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="Of a run: those of its last epoch, or of the epoch that was best on held-out images.",
)
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
def export(source: str, layout: str, output: Path, name: str | None, runs: Path, weights: str, force: bool) -> None:
    """Write the weights of SOURCE to a file that others can load.

    SOURCE is a run's folder, the fingerprint of a run (its beginning is enough), or a file of weights with --model.
    The averaged weights are taken where a run keeps them. The file holds {"state_dict": ...}: with --format upstream
    under the names of the code that published the model (SeqAttention's for pre_norm blocks, the CCT authors' for
    stream_norm), with --format headsweep under our own.
    """
    if output.exists() and not force:
        raise UserError(f"{output} exists; give another --output, or --force to replace it")
    if name is not None and weights == "best":
        raise UserError(f"--weights best: with --model, {source} is a file of weights; want a run, or no --weights")
    model = _model(source, runs, weights) if name is None else _named(Path(source), name)
    _write(output, _state_dict(model, layout))
    click.echo(f"{output}: {layout} state dict of {source}")


def _find_run(source: str, runs: Path) -> Path:
    """The folder of a run, given itself or a fingerprint."""
    if Path(source).is_dir():
        return Path(source)
    if Path(source).is_file():
        raise UserError(f"{source} is a file: say with --model what it holds, e.g. --model cct_7_3x1_32")
    long_enough = len(source) >= SHORTEST_FINGERPRINT and "/" not in source
    found = sorted(folder for folder in runs.glob("*") if folder.name.startswith(source)) if long_enough else []
    if len(found) != 1:
        what = f"{len(found)} runs" if found else "no run"
        raise UserError(f"{source}: no such folder or file, and {what} of that fingerprint in {runs} (see --runs)")
    return found[0]


def _model(source: str, runs: Path, weights: str) -> Classifier:
    """The model of a run, with its "last" or "best" weights."""
    from headsweep.run.load_model import trained
    from headsweep.tracking.run_folder import RunFolder

    return trained(RunFolder(_find_run(source, runs)), best=weights == "best")


def _named(path: Path, name: str) -> Classifier:
    """The model of that name, with as many classes as the file has."""
    import timm

    from headsweep.models.registry import ENTRIES
    from headsweep.models.state_dicts import count_classes
    from headsweep.run.load_model import load_weights, weights_in

    if name not in ENTRIES:
        raise UserError(
            f"--model {name}: unknown; want a name of headsweep's, e.g. cct_7_3x1_32 or seqattn8_cct_7_3x1_32"
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
    """Write aside, sync, rename."""
    import torch

    from headsweep.tracking import atomic_files

    memory = io.BytesIO()  # straight into the file, torch says of a full disk no more than "unexpected pos"
    torch.save({"state_dict": dict(state)}, memory)
    try:
        atomic_files.write_with(output, lambda file: file.write(memory.getbuffer()))
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from error
