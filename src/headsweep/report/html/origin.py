"""Where a sweep comes from: the commands that planned it, and the study that they name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from headsweep.report.table import published
from headsweep.tracking.sweep_folder import SweepFolder

STUDIES = published.FOLDER.parent


@dataclass(frozen=True)
class Origin:
    """What a page says of its sweep beside the runs."""

    name: str
    commands: tuple[str, ...] = ()
    study: str = ""  # what the study's file says on top: question, command, cost, what is expected


def origin_of(sweep: SweepFolder, studies: Path = STUDIES) -> Origin:
    """Read them from the sweep's plan and from `studies`; a study that is gone is no error."""
    commands = tuple(sweep.commands())
    names = dict.fromkeys(re.findall(r"\+sweeps=([\w-]+)", " ".join(commands)))
    headers = [
        header(path.read_text(encoding="utf-8")) for name in names if (path := studies / f"{name}.yaml").exists()
    ]
    return Origin(sweep.name, commands, "\n".join(headers))


def header(text: str) -> str:
    """The comment on top of a study's file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines).strip()
