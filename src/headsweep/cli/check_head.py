"""`headsweep check-head`: whether a head has the invariants that the platform relies on."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from headsweep.cli.group import commands
from headsweep.errors import UserError

if TYPE_CHECKING:
    from headsweep.analysis.head_checks import Outcome
    from headsweep.config import HeadConfig

_LABELS = {True: "holds ", False: "FAILS ", None: "not checked:"}


@commands.command("check-head")
@click.argument("name")
@click.argument("options", nargs=-1, metavar="[head.OPTION=VALUE]...")
@click.option("--width", type=click.IntRange(1), default=64, show_default=True, help="D, the width of a token.")
@click.option("--tokens", type=click.IntRange(1), default=16, show_default=True, help="N, the number of patch tokens.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check_head(name: str, options: tuple[str, ...], width: int, tokens: int, as_json: bool) -> None:
    """Check the invariants of the head NAME: of headsweep, of a package, or ./FILE.py:CLASS.

    Shapes for every K, a number of operators that does not depend on K, equality with K single heads, gradients,
    bfloat16, torch.compile, torch.export and torch.fx, state dict, determinism, parameters and FLOPs. Options of
    the head are given as head.gram_dim=32. Exit code 1 if a check fails; its line shows what was found. If the
    constructor or pool fails, the checks that need it are not made.
    """
    for option in options:
        if not option.startswith("head.") or "=" not in option:
            raise UserError(f"{option}: expected an option of the head, head.NAME=VALUE")
    head = _configured(name, options)
    from headsweep.analysis import head_checks

    outcomes: list[Outcome] = []
    for outcome in head_checks.check_head(head_checks.subject_of(head, width, tokens)):
        outcomes.append(outcome)
        if not as_json:
            click.echo(_line(outcome))
    holding = sum(outcome.holds is True for outcome in outcomes)
    holds = holding == len(outcomes)
    if as_json:
        answer = {"head": head.name, "width": width, "tokens": tokens, "holds": holds}
        click.echo(json.dumps(answer | {"checks": [asdict(outcome) for outcome in outcomes]}, indent=1))
    else:
        click.echo(f"{name}: {holding} of {len(outcomes)} hold")
    sys.exit(0 if holds else 1)


def _configured(name: str, options: tuple[str, ...]) -> HeadConfig:
    """Return the head with its default options, but for those given."""
    from headsweep.config import parse, spec_of
    from headsweep.config.overrides import hydra_value
    from headsweep.config.study.expansion import composer

    with composer() as compose:
        # The width of a model of timm is not known yet, so that it is checked with --width alone.
        # A frozen backbone, which every head accepts.
        frozen = ["model=timm", "backbone=random", "augmentation=none"]
        head = parse(compose([f"head={hydra_value(name)}", *frozen, *options])).head
    if spec_of(head).is_fitted:
        raise UserError(f"{name}: expected a head that is trained, found one that is fitted in one pass")
    return head


def _line(outcome: Outcome) -> str:
    return f"{outcome.check:14}{_LABELS[outcome.holds]} {outcome.detail}"
