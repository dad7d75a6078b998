"""The `headsweep` command: what is done with runs once they are trained. A run is started by `python src/train.py`.

A command is a function below; what is heavy (torch, timm, Hydra) is imported when it is needed, so that `--help` and
`status` answer at once.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from headsweep.models import Classifier
    from headsweep.tracking.run_folder import RunFolder

OUTPUT = Path(__file__).resolve().parents[2] / "outputs"  # what paths.output is, unless it is set
RUNS = OUTPUT / "runs"
REFRESH_SECONDS = 2.0
FOLLOW_SECONDS = 0.2
SHORTEST_FINGERPRINT = 4


def main() -> None:
    """Run the command line; a mistake is one line and exit code 2."""
    try:
        commands(standalone_mode=False)
    except (Exception, KeyboardInterrupt) as error:
        from headsweep.entry import one_line_errors  # imports Hydra, to know its errors

        with one_line_errors():
            if isinstance(error, click.ClickException):
                raise UserError(f"{' '.join(error.format_message().split())} (headsweep --help)") from error
            if isinstance(error, click.Abort) and error.__cause__:  # how click hands on an interrupt
                raise error.__cause__ from None
            raise


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]})
def commands() -> None:
    """Which classification head, and how many of them? What can be done with trained runs."""


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
@click.option("--force", is_flag=True, help="Replace the output file if it exists.")
def export(source: str, layout: str, output: Path, name: str | None, runs: Path, force: bool) -> None:
    """Write the weights of SOURCE to a file that others can load.

    SOURCE is a run's folder, the fingerprint of a run (its beginning is enough), or a file of weights with --model.
    The averaged weights are taken where a run keeps them. The file holds {"state_dict": ...}: with --format upstream
    under the names of the code that published the model (SeqAttention's for pre_norm blocks, the CCT authors' for
    stream_norm), with --format headsweep under our own.
    """
    if output.exists() and not force:
        raise UserError(f"{output} exists; give another --output, or --force to replace it")
    model = _trained(_find_run(source, runs)) if name is None else _named(Path(source), name)
    _write(output, _state_dict(model, layout))
    click.echo(f"{output}: {layout} state dict of {source}")


output_option = click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=OUTPUT,
    show_default=True,
    help="Folder of the sweeps and runs (paths.output).",
)


@commands.command()
@click.argument("sweep", required=False)
@output_option
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
def status(sweep: str | None, output: Path, watch: bool) -> None:
    """Show how far sweeps are: a line each, or of SWEEP a line a run.

    SWEEP is a sweep's name, the beginning of it, or "latest".
    """
    from headsweep.sweep.status import show

    if watch:
        _watch(lambda: show(sweep, output))
    else:
        click.echo(show(sweep, output))


@commands.command()
@click.argument("sweep", default="latest")
@output_option
def watch(sweep: str, output: Path) -> None:
    """Follow SWEEP until it has ended, feed MLflow meanwhile, and print its table.

    SWEEP is as in `status`. Ctrl-C ends the following, not the sweep.
    """
    from headsweep.sweep.watching import find_sweep

    folder = find_sweep(sweep, output)
    from headsweep.sweep.following import follow

    follow(folder.resolve())


@commands.command()
@click.argument("run")
@output_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what it prints, until it ends.")
def logs(run: str, output: Path, follow: bool) -> None:
    """Show what RUN printed and, if it failed, why.

    RUN is a run's fingerprint or name, or the beginning of one.
    """
    from headsweep.sweep.status import summary
    from headsweep.sweep.watching import find_run

    folder = find_run(run, output)
    with contextlib.suppress(KeyboardInterrupt):
        _print_log(folder, follow)
    click.echo(summary(folder), err=True)


@commands.command()
@click.argument("names", metavar="[SWEEP|RUN]...", nargs=-1)
@output_option
@click.option("--slots", type=click.IntRange(min=1), help="Runs at a time, as hydra.launcher.slots.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of a run, as hydra.launcher.threads.")
@click.option("--here", is_flag=True, help="Train on this machine what was submitted to a cluster.")
def retry(names: tuple[str, ...], output: Path, slots: int | None, threads: int | None, here: bool) -> None:
    """Train what is missing of a sweep, or of single runs, as it was planned; failures are forgotten.

    SWEEP and RUN are as in `status` and `logs`; without any, it is the latest sweep. What was submitted to a cluster is
    submitted there again.
    """
    from headsweep.sweep.slurm import queue
    from headsweep.sweep.watching import find_each

    folders = find_each(names or ("latest",), output.resolve())  # before anything heavy is imported
    submitted = {} if here else queue.by_sweep(folders)
    if submitted:
        from headsweep.sweep.slurm.submission import submit_again

        for sweep, theirs in submitted.items():
            submit_again(sweep, theirs)
    folders = [folder for folder in folders if not any(folder in theirs for theirs in submitted.values())]
    if submitted and not folders:
        return
    from headsweep.sweep.again import train_again

    train_again(folders, output.resolve(), slots, threads)


@commands.command()
@click.argument("sweep", required=False)
@output_option
@click.option("--wait", default=30.0, show_default=True, help="Seconds to wait for the end.")
def cancel(sweep: str | None, output: Path, wait: float) -> None:
    """Stop the training of SWEEP on this machine, as Ctrl-C would; `headsweep retry SWEEP` goes on from there.

    SWEEP is as in `status`; without it, all sweeps that are being trained. Given twice, runs stop at once, without
    saving what they have done since their last checkpoint.
    """
    from headsweep.sweep.slurm import queue
    from headsweep.sweep.watching import find_sweep
    from headsweep.tracking import launchers

    # One whose cells are still being checked has no plan yet.
    folders = sorted((output / "sweeps").glob("*")) if sweep is None else [find_sweep(sweep, output)]
    cancelled = {folder: queue.cancel(folder) for folder in folders}
    for folder, jobs in cancelled.items():
        if jobs:
            click.echo(f"{folder.name}: cancelled job{'s' * (len(jobs) > 1)} {', '.join(jobs)}")
    busy = [folder for folder in folders if not cancelled[folder] and launchers.find(folder)]
    if not busy and not any(cancelled.values()):
        click.echo(f"nothing to cancel: no process trains {folders[0].name if sweep else 'a sweep'} in {output}")
    for folder in busy:
        for launcher, outcome in launchers.stop(folder, wait).items():
            click.echo(f"{folder.name}: {launcher} {outcome}")


@commands.command()
@output_option
@click.option("--uri", help="Address of MLflow's store; default: the one that each run was planned with.")
@click.option("--experiment", help="Its experiment; default: the one that each run was planned with.")
def sync(output: Path, uri: str | None, experiment: str | None) -> None:
    """Send to MLflow what it lacks of all runs and sweeps.

    After a sweep without a server, or for runs that were deleted in MLflow; given again, it changes nothing.
    """
    from headsweep.tracking import mlflow_sync

    mlflow_sync.sync(output, uri, experiment, click.echo)


def _print_log(folder: RunFolder, follow: bool) -> None:
    from headsweep.sweep.watching import is_going_on

    shown = 0
    while True:
        ended = not (follow and is_going_on(folder))  # asked first, so that its last words are shown
        text = folder.log.read_bytes() if folder.log.exists() else b""
        click.echo(text[shown:], nl=False)
        shown = len(text)
        if ended:
            break
        time.sleep(FOLLOW_SECONDS)
    failure = folder.failure() or ""
    if failure.strip().rpartition("\n")[2].encode() not in text:
        click.echo(failure, nl=False)


def _watch(look: Callable[[], str]) -> None:
    if not sys.stdout.isatty():
        raise UserError("--watch: the output is no terminal; look once, without --watch")
    from rich.live import Live
    from rich.text import Text

    with contextlib.suppress(KeyboardInterrupt), Live(auto_refresh=False, vertical_overflow="crop") as screen:
        while True:
            screen.update(Text.from_ansi(look()), refresh=True)
            time.sleep(REFRESH_SECONDS)


@commands.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("--list", "listing", is_flag=True, help="At once: give only costs that runs have recorded, count none.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
def plan(arguments: tuple[str, ...], listing: bool, as_json: bool) -> None:
    """Say what `python src/train.py -m ARGUMENTS` would train, and start nothing.

    One line a run: fingerprint, name, state, parameters, FLOPs of backbone and head for one image, and, from finished
    runs of the same cost, the training time that is left and the memory that it takes. Every cell that is not valid is
    named; the exit code is then 2. seeds=3 is short for seed=0,1,2.
    """
    import hydra

    from headsweep.config import PROJECT_ROOT
    from headsweep.entry import one_line_errors, run_single, spell_out

    unknown = [word for word in arguments if word.startswith("-") and word not in ("-m", "--multirun")]
    if unknown:
        raise UserError(f"{unknown[0]}: no option of plan; known: --list, --json (headsweep plan --help)")
    words = ["-m", "hydra/launcher=plan", *(word for word in arguments if word not in ("-m", "--multirun"))]
    options = [f"hydra.launcher.costs={not listing}", f"hydra.launcher.json={as_json}"]
    sys.argv = [sys.argv[0], *spell_out(words), *options]
    with one_line_errors():  # Hydra would print its own, and exit, before `main` hears of them
        hydra.main(version_base="1.3", config_path=str(PROJECT_ROOT / "conf"), config_name="train")(run_single)()


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


def _trained(folder: Path) -> Classifier:
    """The model of a run, with the weights of its last checkpoint."""
    from headsweep.models import model_of
    from headsweep.sweep.plan import frozen
    from headsweep.tracking.run_folder import RunFolder

    files = RunFolder(folder)
    if not files.config.exists():
        raise UserError(f"{folder} is no run's folder: it has no {files.config.name}")
    run = frozen(files)
    model = model_of(replace(run, model=replace(run.model, checkpoint=None)))
    return _load(model, _read(files.checkpoint))


def _named(path: Path, name: str) -> Classifier:
    """The model of that name, with as many classes as the file has."""
    import timm

    from headsweep.models.published import count_classes
    from headsweep.models.registry import ENTRIES

    if name not in ENTRIES:
        raise UserError(
            f"--model {name}: unknown; want a name of headsweep's, e.g. cct_7_3x1_32 or seqattn8_cct_7_3x1_32"
        )
    weights = _read(path)
    return _load(timm.create_model(name, num_classes=count_classes(weights)), weights)


def _read(path: Path) -> dict[str, Tensor]:
    from headsweep.models.checkpoint_file import read_weights

    try:
        return read_weights(path)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _load(model: Classifier, weights: Mapping[str, Tensor]) -> Classifier:
    model.load_state_dict(weights)
    return model


def _state_dict(model: Classifier, layout: str) -> Mapping[str, Tensor]:
    from headsweep.heads import Head
    from headsweep.models.published import publish

    assert isinstance(model.head, Head), "a model that was just built has one"
    return publish(model.backbone, model.head) if layout == "upstream" else model.state_dict()


def _write(output: Path, state: Mapping[str, Tensor]) -> None:
    """Write aside, sync, rename."""
    import torch

    from headsweep.tracking import durable

    memory = io.BytesIO()  # straight into the file, torch says of a full disk no more than "unexpected pos"
    torch.save({"state_dict": dict(state)}, memory)
    try:
        durable.write_with(output, lambda file: file.write(memory.getbuffer()))
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror or error}") from error


if __name__ == "__main__":
    main()
