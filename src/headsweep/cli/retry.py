"""`headsweep retry`: train what is missing of sweeps or runs."""

from __future__ import annotations

from pathlib import Path

import click

from headsweep.cli.group import commands, output_option


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
