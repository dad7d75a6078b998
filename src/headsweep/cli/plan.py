"""What a sweep would train."""

from __future__ import annotations

import click

from headsweep.cli.group import commands
from headsweep.errors import UserError


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
    from headsweep.entry import command_line, run_single

    unknown = [word for word in arguments if word.startswith("-") and word not in ("-m", "--multirun")]
    if unknown:
        raise UserError(f"{unknown[0]}: no option of plan; known: --list, --json (headsweep plan --help)")
    words = ["-m", "hydra/launcher=plan", *(word for word in arguments if word not in ("-m", "--multirun"))]
    options = [f"hydra.launcher.costs={not listing}", f"hydra.launcher.json={as_json}"]
    with command_line([*words, *options]):  # Hydra would print its own, and exit, before `main` hears of them
        hydra.main(version_base="1.3", config_path=str(PROJECT_ROOT / "conf"), config_name="train")(run_single)()
