"""`headsweep retry`: train what is missing of sweeps or runs."""

from __future__ import annotations

from pathlib import Path

import click

from headsweep.cli.group import commands, output_option
from headsweep.text import plural


@commands.command()
@click.argument("words", metavar="[SWEEP|RUN|KEY=VALUE]...", nargs=-1)
@output_option
@click.option("--slots", type=click.IntRange(min=1), help="Number of parallel runs, as hydra.launcher.slots.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads per run, as hydra.launcher.threads.")
@click.option("--here", is_flag=True, help="Train on this machine even what was submitted to a cluster.")
def retry(words: tuple[str, ...], output: Path, slots: int | None, threads: int | None, here: bool) -> None:
    """Resume or repeat the unfinished runs of sweeps, or single runs.

    Runs use the configuration they were planned with, and failed attempts no longer count. SWEEP is a name or prefix of
    one, RUN a fingerprint, name or prefix of one, or a folder; the default is the latest sweep. `head=ga heads=8`
    chooses cells. Runs that were submitted to a cluster are submitted again.
    """
    from headsweep.config.launcher.launchers import check_threads
    from headsweep.status import choose, queue
    from headsweep.status.find import find_each

    check_threads(threads)

    names, conditions = choose.split(words)
    folders = find_each(names or ["latest"], output.resolve())  # before anything heavy is imported
    folders = choose.chosen(folders, conditions)
    if conditions and all(folder.result() for folder in folders):  # a sweep of these cells alone would be the latest
        click.echo(f"{plural(len(folders), 'run')}, all finished: nothing to retry")
        return
    submitted = {} if here else queue.by_sweep(folders)
    if submitted:
        from headsweep.launch.slurm.launcher import submit_again

        for sweep, members in submitted.items():
            submit_again(sweep, members)
    folders = [folder for folder in folders if not any(folder in members for members in submitted.values())]
    if submitted and not folders:
        return
    from headsweep.launch.retry import train_again

    train_again(folders, output.resolve(), slots, threads)
