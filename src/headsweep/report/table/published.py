"""Published numbers, and whether ours agree with them.

`sweeps/published/*.yaml` holds one file a source: what it printed, on which configuration, and how far apart two
numbers may be. A number stands beside a cell only if the cell agrees with all that the source states of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from headsweep.config import PROJECT_ROOT
from headsweep.config.values import matches
from headsweep.errors import UserError
from headsweep.report.read.cells import Cell

if TYPE_CHECKING:
    from headsweep.report.table.build import Row

FOLDER = PROJECT_ROOT / "sweeps" / "published"
METRICS = ("top1", "top5", "parameters")


@dataclass
class Number:
    """A number in the unit that it was printed in: percent, or a count of parameters."""

    value: float
    tolerance: float  # how far from it ours may be
    reason: str  # for that tolerance

    def __post_init__(self) -> None:
        if self.value <= 0 or self.tolerance < 0:
            raise UserError(f"value={self.value}, tolerance={self.tolerance}: want more than 0, and at least 0")


@dataclass
class PublishedRow:
    """One printed row, and the configuration that it belongs to."""

    printed_as: str
    cell: dict[str, Any]  # dotted key -> value, beside those of the source
    top1: Number | None = None
    top5: Number | None = None
    parameters: Number | None = None
    note: str | None = None  # what a reader must know beside the number
    source: str = ""  # filled in from the file

    def __post_init__(self) -> None:
        if not any(getattr(self, metric) for metric in METRICS):
            raise UserError(f"{self.printed_as}: has no number; want at least one of {', '.join(METRICS)}")


@dataclass
class Source:
    """One table of one paper."""

    source: str
    link: str
    evaluation: str  # how its numbers came about
    cell: dict[str, Any]  # dotted key -> value, which all rows share
    rows: list[PublishedRow]


def load(folder: Path) -> list[Source]:
    """Read the sources in `folder`; none where there is no such folder.

    Raises:
        UserError: a file is not what a source must be; the message names it.
    """
    return [_load(path) for path in sorted(folder.glob("*.yaml"))]


def matching(cell: Cell, sources: Sequence[Source]) -> tuple[PublishedRow, ...]:
    """The printed rows whose whole stated configuration is that of `cell`."""
    rows = [row for source in sources for row in source.rows]
    return tuple(row for row in rows if all(matches(value, cell.value(key)) for key, value in row.cell.items()))


def within_tolerance(row: Row) -> bool | None:
    """Do all published numbers of a row agree with ours? None where there is none."""
    answers = [_agree(number, ours) for _, _, number, ours in _compared(row)]
    return all(answers) if answers else None


def footnotes(rows: Sequence[Row], axes: Sequence[str], sources: Sequence[Source]) -> Iterator[str]:
    """Where the published numbers come from, and which of ours are further from them than they may be."""
    for source in sources:
        if shown := [entry for entry in source.rows if any(entry in row.published for row in rows)]:
            notes = "".join(f" {entry.printed_as}: {entry.note}." for entry in shown if entry.note)
            yield f"Published: {source.source}, {source.evaluation}.{notes} {source.link}"
    misses = [f"{_name(row, axes)}: {', '.join(_misses(row))}" for row in rows if within_tolerance(row) is False]
    if misses:
        yield f"OURS MISSES: {'; '.join(misses)}."
    elif any(within_tolerance(row) for row in rows):
        yield "Ours agrees with all published numbers (top-1, top-5, parameters) within their tolerances."


def _load(path: Path) -> Source:
    try:
        source = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Source), OmegaConf.load(path)))
    except OmegaConfBaseException as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(f"{path}: {error.full_key + ': ' if error.full_key else ''}{reason}") from error
    except (YAMLError, OSError, UserError, ValueError) as error:
        raise UserError(f"{path}: {' '.join(str(error).split())}") from error
    assert isinstance(source, Source)
    for row in source.rows:
        row.source, row.cell = source.source, {**source.cell, **row.cell}
    return source


def _compared(row: Row) -> Iterator[tuple[PublishedRow, str, Number, float]]:
    """Every number that is published for a row and that ours has, too: ours in the unit of the published one."""
    ours = {
        "top1": 100 * row.top1.mean if row.top1 else None,
        "top5": 100 * row.top5.mean if row.top5 else None,
        "parameters": row.parameters,
    }
    for entry in row.published:
        for metric, mine in ours.items():
            number = getattr(entry, metric)
            if number is not None and mine is not None:
                yield entry, metric, number, mine


def _agree(number: Number, ours: float) -> bool:
    return abs(ours - number.value) <= number.tolerance + 1e-9  # percents are no exact binary numbers


def _name(row: Row, axes: Sequence[str]) -> str:
    options = [f"{axis} {value}" for axis, value in zip(axes, row.axes, strict=True)]
    return ", ".join([row.head, f"{row.heads} head{'s' if row.heads > 1 else ''}", *options])


def _misses(row: Row) -> Iterator[str]:
    for entry, metric, number, ours in _compared(row):
        if not _agree(number, ours):
            numbers = (ours, number.value, number.tolerance)
            mine, theirs, within = (f"{n:,.0f}" if metric == "parameters" else f"{n:.2f}" for n in numbers)
            what = {"top1": "", "top5": "top-5 ", "parameters": "parameters "}[metric]
            yield f"{what}{mine} against {theirs} ± {within} ({entry.source}, {entry.printed_as})"
