"""Published results: load them, and find those of a cell.

Each file in `sweeps/published` is one source: the results that it printed, their configurations and tolerances. A
published result belongs to a cell only if the cell agrees with every value that the source states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from headsweep.config.values import matches
from headsweep.config.yaml_files import load_yaml
from headsweep.errors import UserError
from headsweep.folders import PROJECT_ROOT
from headsweep.report.read.cells import Cell
from headsweep.text import first_line, message_of

FOLDER = PROJECT_ROOT / "sweeps" / "published"
METRICS = ("top1", "top5", "parameters")


@dataclass
class Number:
    """A number in the unit that it was printed in: percent, or a count of parameters."""

    value: float
    tolerance: float  # largest difference that counts as reproduced
    reason: str  # for that tolerance

    def __post_init__(self) -> None:
        if self.value <= 0 or self.tolerance < 0:
            raise UserError(f"value={self.value} tolerance={self.tolerance}: expected a value > 0 and a tolerance >= 0")


@dataclass
class PublishedRow:
    """One published row and its configuration."""

    printed_as: str
    cell: dict[str, Any]  # dotted key -> value, beside those of the source
    top1: Number | None = None
    top5: Number | None = None
    parameters: Number | None = None
    note: str | None = None  # printed below the table
    source: str = ""  # set by `load`

    def __post_init__(self) -> None:
        if not any(getattr(self, metric) for metric in METRICS):
            raise UserError(f"{self.printed_as}: expected at least one of {', '.join(METRICS)}, found none")


@dataclass
class Source:
    """One table of one paper."""

    source: str
    link: str
    evaluation: str  # how its numbers were obtained
    cell: dict[str, Any]  # dotted key -> value, shared by all rows
    rows: list[PublishedRow]


def load(folder: Path) -> list[Source]:
    """Read the sources in `folder`; none if the folder does not exist.

    Raises:
        UserError: a file is not a valid source.
    """
    return [_load(path) for path in sorted(folder.glob("*.yaml"))]


def matching(cell: Cell, sources: Sequence[Source]) -> tuple[PublishedRow, ...]:
    """Return the published rows whose stated configuration is that of `cell`."""
    rows = [row for source in sources for row in source.rows]
    return tuple(row for row in rows if all(matches(value, cell.value(key)) for key, value in row.cell.items()))


@cache
def _load(path: Path) -> Source:
    try:
        source = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Source), load_yaml(path)))
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {error.full_key + ': ' if error.full_key else ''}{first_line(error)}") from error
    except (YAMLError, OSError, UserError, ValueError) as error:
        raise UserError(f"{path}: {message_of(error)}") from error
    assert isinstance(source, Source)
    for row in source.rows:
        row.source, row.cell = source.source, {**source.cell, **row.cell}
    return source
