"""Sweeps that are being trained, or were: look, follow, stop, go on."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep import console
from headsweep.cli.group import commands, output_option
from headsweep.errors import UserError
from headsweep.text import lines, one_line

if TYPE_CHECKING:
    from headsweep.tracking.run_folder import RunFolder

REFRESH_SECONDS = 2.0
FOLLOW_SECONDS = 0.2


def _seconds(context: click.Context, option: click.Parameter, given: float) -> float:
    if not (math.isfinite(given) and given >= 0):
        raise UserError(f"--wait={given:g}: expected a finite number of seconds, at least 0")
    return given


@commands.command()
@click.argument("sweep", required=False)
@output_option
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
def status(sweep: str | None, output: Path, watch: bool) -> None:
    """Show how far sweeps are: a line each, or of SWEEP a line a run.

    SWEEP is a sweep's name, the beginning of it, or "latest".
    """
    from headsweep.status.render import show

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
    from headsweep.status.views import find_sweep

    folder = find_sweep(sweep, output)
    from headsweep.launch.follow import follow
    from headsweep.launch.local.pool import log_models

    follow(folder.resolve(), log_models)


@commands.command()
@click.argument("run")
@output_option
@click.option("-f", "--follow", is_flag=True, help="Go on with what it prints, until it ends.")
def logs(run: str, output: Path, follow: bool) -> None:
    """Show what RUN printed and, if it failed, why.

    RUN is a run's fingerprint or name, or the beginning of one.
    """
    from headsweep.status.render import summary
    from headsweep.status.views import find_run

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
    from headsweep.config.launchers import check_threads
    from headsweep.status import queue
    from headsweep.status.views import find_each

    check_threads(threads)

    folders = find_each(names or ("latest",), output.resolve())  # before anything heavy is imported
    submitted = {} if here else queue.by_sweep(folders)
    if submitted:
        from headsweep.launch.slurm.launcher import submit_again

        for sweep, theirs in submitted.items():
            submit_again(sweep, theirs)
    folders = [folder for folder in folders if not any(folder in theirs for theirs in submitted.values())]
    if submitted and not folders:
        return
    from headsweep.launch.retry import train_again

    train_again(folders, output.resolve(), slots, threads)


@commands.command()
@click.argument("sweep", required=False)
@output_option
@click.option("--wait", default=30.0, show_default=True, callback=_seconds, help="Seconds to wait for the end.")
def cancel(sweep: str | None, output: Path, wait: float) -> None:
    """Stop the training of SWEEP, here as Ctrl-C would, or its jobs; `headsweep retry SWEEP` goes on from there.

    SWEEP is as in `status`; without it, all sweeps that are being trained. Given twice, runs stop at once, without
    saving what they have done since their last checkpoint.
    """
    from headsweep.status import queue
    from headsweep.status.views import find_sweep
    from headsweep.tracking import active_launchers

    # One whose cells are still being checked has no plan yet.
    folders = sorted((output / "sweeps").glob("*")) if sweep is None else [find_sweep(sweep, output)]
    cancelled = {folder: queue.cancel(folder) for folder in folders}
    for folder, jobs in cancelled.items():
        if jobs:
            click.echo(f"{folder.name}: cancelled job{'s' * (len(jobs) > 1)} {', '.join(jobs)}")
    busy = [folder for folder in folders if not cancelled[folder] and active_launchers.find(folder)]
    if not busy and not any(cancelled.values()):
        click.echo(f"nothing to cancel: no process trains {folders[0].name if sweep else 'a sweep'} in {output}")
    for folder in busy:
        for launcher, outcome in active_launchers.stop(folder, wait).items():
            click.echo(one_line(f"{folder.name}: {launcher} {outcome}"))


def _print_log(folder: RunFolder, follow: bool) -> None:
    from headsweep.status import queue
    from headsweep.status.views import is_going_on

    shown = 0
    while True:
        ended = not (follow and is_going_on(folder))  # asked first, so that its last words are shown
        source = folder.log if folder.log.exists() else queue.printed(folder)  # of a job that never came to the run
        text = source.read_bytes() if source else b""
        whole = text if ended else text[: text.rfind(b"\n") + 1]  # half a line may end in half a character
        click.echo(lines(whole[shown:].decode(errors="replace")), nl=False)
        shown = len(whole)
        if ended or console.is_broken():
            break
        time.sleep(FOLLOW_SECONDS)
    failure = folder.failure() or ""
    if failure.strip().rpartition("\n")[2].encode() not in text:
        click.echo(lines(failure), nl=False)


def _watch(look: Callable[[], str]) -> None:
    if not sys.stdout.isatty():
        raise UserError("--watch: the output is no terminal; look once, without --watch")
    from rich.live import Live
    from rich.text import Text

    with contextlib.suppress(KeyboardInterrupt), Live(auto_refresh=False, vertical_overflow="crop") as screen:
        while not console.is_broken():
            screen.update(Text.from_ansi(look()), refresh=True)
            time.sleep(REFRESH_SECONDS)
