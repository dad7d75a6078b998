"""What a sweep would train."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headsweep.cli.completion import complete
from headsweep.cli.group import FilePath, commands
from headsweep.errors import UserError
from headsweep.text import one_line

if TYPE_CHECKING:
    from headsweep.autotune.launcher import AutotunedLauncher
    from headsweep.config import RunConfig
    from headsweep.launch.launcher import Launcher
    from headsweep.plan.preview import Check, Preview
    from headsweep.tracking.cost import RunCost


@commands.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, shell_complete=complete)
@click.option("--list", "listing", is_flag=True, help="Fast: show recorded costs only, count none.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--config-dir",
    type=FilePath(exists=True, file_okay=False),
    help="Another folder of configuration, laid out as conf/.",
)
def plan(arguments: tuple[str, ...], listing: bool, as_json: bool, config_dir: Path | None) -> None:
    """Show what `headsweep train -m ARGUMENTS` would train, and start nothing.

    Prints one line per run: fingerprint, name, state, parameters, FLOPs per image of backbone and head, and, estimated
    from finished runs of the same cost, remaining training time and memory. Every invalid cell is listed, with exit
    code 2. seeds=3 is short for seed=0,1,2. With hydra/launcher=slurm hydra.launcher.from_records=[memory,time], more
    lines show what jobs would ask for.
    """
    from headsweep.config.command_line import spell_out, unknown_option

    unknown = [word for word in arguments if word.startswith("-") and word not in ("-m", "--multirun")]
    if unknown:
        known = "known: --list, --json, --config-dir (headsweep plan --help)"
        raise unknown_option(unknown[0], f"no option of plan; {known}")
    words = spell_out([word for word in arguments if word not in ("-m", "--multirun")])
    _plan(words, listing, as_json, config_dir)


def _plan(words: Sequence[str], listing: bool, as_json: bool, config_dir: Path | None) -> None:
    from dataclasses import asdict
    from functools import partial

    from headsweep.config import RunConfig
    from headsweep.config.study.expansion import composer, read_grid
    from headsweep.launch.launcher import make_launcher
    from headsweep.plan.expand import expand
    from headsweep.plan.fingerprint import fingerprint
    from headsweep.plan.lookup import Lookup
    from headsweep.plan.plan import make_plan
    from headsweep.plan.preview import preview, show
    from headsweep.plan.stored_tokens import token_folders

    lookup = Lookup()
    with composer(config_dir):
        request, hydra = read_grid(words)
        chosen = make_launcher(hydra.launcher) if "class" in hydra.launcher else None
        launcher = _on_this_machine(chosen)
        fit = partial(launcher.batch_size, measure=not listing)
        expansion = expand(request, fit, lookup, say=(lambda line: None) if as_json else print)
    runs = expansion.found
    slots = launcher.slots_for([run for run in lookup.resolve(runs) if isinstance(run, RunConfig)])
    found = preview(
        runs,
        expansion.mistakes,
        None if listing else _check(launcher, chosen),
        bool(slots.gpus),
        lookup,
        expansion.declared,
    )
    planned = None if found.bad else make_plan(runs, lookup)
    if planned and (screening := launcher.screening(planned)):
        print(screening.opening, file=sys.stderr)
    resolved = [run for run in lookup.resolve(runs) if isinstance(run, RunConfig)]
    costs = {row.fingerprint: row.cost for row in found.rows}
    tokens = token_folders([run for run in resolved if fingerprint(run) in costs], costs)  # none of refused cells
    show(found, slots.count, {"tokens": [asdict(it) for it in tokens]} if as_json else None)
    if not as_json:
        for it in tokens:
            print(one_line(it.line))
        if shared := _grouping(resolved, found, slots.count):
            print(shared)
        for line in chosen.forecast(planned) if chosen and planned else ():
            print(one_line(line), file=sys.stderr)
    if found.bad:
        sys.exit(2)


def _check(launcher: AutotunedLauncher, chosen: Launcher | None) -> Check:
    """Return what checks new runs: also for what this machine lacks, if the chosen launcher trains them here."""
    from headsweep.launch.local.launcher import LocalLauncher
    from headsweep.launch.local.pool import LocalPool

    def check(new: Sequence[RunConfig]) -> list[RunCost | UserError]:
        if chosen is not None and not isinstance(chosen, LocalLauncher):
            return LocalPool().check(new)
        launcher.prepare(new)
        return launcher.check(new)

    return check


def _grouping(runs: Sequence[RunConfig], found: Preview, slots: int) -> str | None:
    """Return a line about which of the runs to be trained share processes; None if none do."""
    from headsweep.launch.local.grouping import Candidate, grouped, shared_line
    from headsweep.plan.fingerprint import fingerprint
    from headsweep.plan.past_costs import plain

    costs = {row.fingerprint: row.cost or {} for row in found.waiting}
    waiting = {name: run for run in runs if (name := fingerprint(run)) in costs}
    by_seed = sorted(waiting, key=lambda name: waiting[name].seed)
    return shared_line(grouped([Candidate.of(plain(waiting[name]), costs[name]) for name in by_seed], slots))


def _on_this_machine(chosen: Launcher | None) -> AutotunedLauncher:
    """Return the launcher `local` with those of the chosen launcher's keys that it has, e.g. `slots`."""
    from dataclasses import fields, replace

    from headsweep.autotune.launcher import AutotunedLauncher
    from headsweep.config.study.expansion import local_defaults

    defaults = local_defaults()
    settings = chosen.settings if chosen else defaults
    names = (field.name for field in fields(defaults) if hasattr(settings, field.name))
    return AutotunedLauncher(replace(defaults, **{name: getattr(settings, name) for name in names}))
