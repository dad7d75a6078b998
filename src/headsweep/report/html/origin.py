"""The commands that planned a sweep, and the study file that they name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from headsweep.report.table import published
from headsweep.tracking.sweep_folder import SweepFolder

STUDIES = published.FOLDER.parent


@dataclass(frozen=True)
class Origin:
    """What the page shows of a sweep beside its runs."""

    name: str
    commands: tuple[str, ...] = ()
    study: str = ""  # the header comment of the study file: question, command, cost, expected outcome


def origin_of(sweep: SweepFolder, studies: Path = STUDIES) -> Origin:
    """Read the commands from the sweep's plan and the headers from `studies`; a missing study file is no error."""
    commands = tuple(sweep.commands())
    names = dict.fromkeys(re.findall(r"\+sweeps=([\w-]+)", " ".join(commands)))
    headers = [
        header(path.read_text(encoding="utf-8")) for name in names if (path := studies / f"{name}.yaml").exists()
    ]
    return Origin(sweep.name, commands, "\n".join(headers))


def header(text: str) -> str:
    """Return the header comment of a study file."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines).strip()
