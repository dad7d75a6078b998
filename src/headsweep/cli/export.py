"""`headsweep export`: write the model of a run for other programs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import OUTPUT, FilePath, commands
from headsweep.errors import UserError
from headsweep.tracking.output_folder import OutputFolder

if TYPE_CHECKING:
    from torch import Tensor

    from headsweep.models import Classifier
    from headsweep.tracking.run_folder import RunFolder

RUNS = OutputFolder(OUTPUT).runs
STATE_DICTS, PROGRAMS = ("headsweep", "upstream"), ("onnx", "pt2")
LAYOUTS = (*STATE_DICTS, "hf", *PROGRAMS)


@commands.command()
@click.argument("source")
@click.option("--format", "layout", type=click.Choice(LAYOUTS), required=True, help="What to write; see above.")
@click.option("--output", type=FilePath(), required=True, help="File to write; for hf, folder.")
@click.option("--model", "name", help="Model of a checkpoint file, e.g. seqattn8_cct_7_3x1_32. Not needed for a run.")
@click.option(
    "--runs",
    type=FilePath(file_okay=False),
    default=RUNS,
    show_default=True,
    help="Folder to search for runs.",
)
@click.option(
    "--weights",
    type=click.Choice(["last", "best"]),
    default="last",
    show_default=True,
    help="Weights of a run: of its last epoch, or of the best epoch on held-out images.",
)
@click.option("--license", "licence", help="Licence in the model card of hf, as the hub names it, e.g. apache-2.0.")
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
def export(
    source: str,
    layout: str,
    output: Path,
    name: str | None,
    runs: Path,
    weights: str,
    licence: str | None,
    force: bool,
) -> None:
    """Write the model of SOURCE for other programs.

    SOURCE is the fingerprint or name of a run, a prefix of one, or its folder, or, with --model, a checkpoint file. If
    the run averages its weights, the averages are written.

    \b
    headsweep  a file {"state_dict": ...} with headsweep's parameter names
    upstream   the same with the names in the code that published the model
               (SeqAttention for pre_norm blocks, CCT for stream_norm)
    hf         a folder for the Hugging Face hub: weights, configuration and
               model card; timm.create_model("local-dir:FOLDER", pretrained=True)
    onnx, pt2  a program for ONNX Runtime, or torch.export.load: pixels from 0
               to 255 to logits, any number of images; it is compared with the
               model before it is written

    The last three need a finished run.
    """
    if name is not None and weights == "best":
        raise UserError(f"--weights best: with --model, {source} is a checkpoint file; give a run, or omit --weights")
    if name is not None and layout not in STATE_DICTS:
        raise UserError(f"--model {name}: --format {layout} needs a run, whose record has the input and the results")
    if licence is not None and layout != "hf":
        raise UserError(f"--license {licence}: expected --format hf, whose model card has it, found {layout}")
    try:
        click.echo(_write(source, layout, output, name, runs, weights, licence, force))
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from error


def _write(
    source: str,
    layout: str,
    output: Path,
    name: str | None,
    runs: Path,
    weights: str,
    licence: str | None,
    force: bool,
) -> str:
    """Write the output; return a line on it."""
    place = OutputFolder(output)
    if place.runs.is_dir() and place.sweeps.is_dir():
        raise UserError(
            f"--output {output}: expected the file or folder to write, found an output folder of runs; "
            f"give another --output, and --runs {place.runs} to name its runs by fingerprint"
        )
    if layout == "hf":
        return _write_folder(_finished(source, runs, layout), weights, output, licence, force)
    if output.exists() and not force:
        raise UserError(f"{output} exists; give another --output, or --force to replace it")
    if output.is_dir():
        raise UserError(f"{output} is a folder; give a file as --output")
    if layout in PROGRAMS:
        return _write_program(_finished(source, runs, layout), weights, layout, output)
    model = _model(source, runs, weights) if name is None else _named(Path(source), name)
    _write_state_dict(output, _state_dict(model, layout))
    return f"{output}: {layout} state dict of {source}"


def _finished(source: str, runs: Path, layout: str) -> RunFolder:
    """Return a run. Raises UserError if it has not finished."""
    from headsweep.tracking.run_record import RunState

    run = _find_run(source, runs)
    if run.config.exists() and (state := run.state()) is not RunState.finished:
        raise UserError(f"{run.path}: --format {layout} needs a finished run, found one that is {state.label}")
    return run


def _write_folder(run: RunFolder, weights: str, output: Path, licence: str | None, force: bool) -> str:
    from headsweep.run import hub_folder

    hub_folder.check_place(output, force)
    hub_folder.write(run, weights == "best", output, licence)
    return f"{output}: {weights} weights of {run.record().name}; timm loads the same from it"


def _write_program(run: RunFolder, weights: str, layout: str, output: Path) -> str:
    from headsweep.run.programs import check_packages, program
    from headsweep.tracking import atomic_files

    check_packages(layout)
    from headsweep.run.predictor import predictor

    exported = predictor(run, best=weights == "best")
    content, differences = program(exported.module, layout, exported.example.shape[1:])
    atomic_files.write_with(output, lambda file: file.write(content))
    found = ", ".join(f"{value:.1g} for {count} image{'s' * (count > 1)}" for count, value in differences.items())
    return f"{output}: {layout} program of {run.record().name}; largest difference of its logits: {found}"


def _find_run(source: str, runs: Path) -> RunFolder:
    """Return a run. Raises UserError for a checkpoint file."""
    from headsweep.status.find import find_among

    if Path(source).is_file():
        raise UserError(f"{source} is a file: name its model with --model, e.g. --model cct_7_3x1_32")
    return find_among(source, runs, f"{runs}", "--runs")


def _model(source: str, runs: Path, weights: str) -> Classifier:
    """Return the model of a run, with its "last" or "best" weights."""
    from headsweep.run.load_model import trained

    return trained(_find_run(source, runs), best=weights == "best")


def _named(path: Path, name: str) -> Classifier:
    """Return the model of that name, with as many classes as the file has."""
    import timm

    from headsweep.models.checkpoints.fit import count_classes
    from headsweep.models.registry import ENTRIES
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
    from headsweep.models.checkpoints.publish import publish

    assert isinstance(model.head, Head), "a model that was just built has one"
    return publish(model.backbone, model.head) if layout == "upstream" else model.state_dict()


def _write_state_dict(output: Path, state: Mapping[str, Tensor]) -> None:
    import torch

    from headsweep.tracking import atomic_files

    memory = io.BytesIO()  # on a full disk, torch.save to a file only reports "unexpected pos"
    torch.save({"state_dict": dict(state)}, memory)
    atomic_files.write_with(output, lambda file: file.write(memory.getbuffer()))
