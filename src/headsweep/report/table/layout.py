"""Lay out a table as a sheet, which every format writes: its columns and rows, or a pivot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headsweep.errors import UserError
from headsweep.report.table.clocks import CLOCKS, unsteady
from headsweep.report.table.columns import ABSENT, COLUMNS, DEFAULT, Column, Entry
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.model import Note, Row, Table


@dataclass(frozen=True)
class Heading:
    """The heading of a column."""

    name: str
    title: str
    unit: str = ""
    is_number: bool = True
    group: str = ""  # heading above several columns of a pivot

    @property
    def label(self) -> str:
        """The title with the unit of the entries."""
        if self.unit == "%":
            return f"{self.title} %"
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclass(frozen=True)
class Sheet:
    """Headings, and an entry for each of them in every row."""

    headings: tuple[Heading, ...]
    rows: tuple[tuple[Entry, ...], ...]
    footnotes: tuple[Note, ...]

    def notes(self, bold: str = "Bold") -> list[str]:
        """Return the footnotes of the columns that are there; `bold` names how bold entries are shown."""
        shown = {heading.name for heading in self.headings}
        notes = [note for note in self.footnotes if not note.columns or shown.intersection(note.columns)]
        return [note_text(note, bold) for note in notes]

    def without(self, name: str) -> Sheet:
        """Return the sheet without the columns of that name."""
        kept = [at for at, heading in enumerate(self.headings) if heading.name != name]
        rows = tuple(tuple(row[at] for at in kept) for row in self.rows)
        return replace(self, headings=tuple(self.headings[at] for at in kept), rows=rows)


def note_text(note: Note, bold: str = "Bold") -> str:
    """Return the sentence of a footnote; `bold` names how bold entries are shown."""
    return f"{bold}: {note.text}" if note.explains_bold else note.text


def parse_columns(words: str | None) -> tuple[str, ...] | None:
    """Return the names in a text such as `parameters,top1,difference`; None stays None.

    Raises:
        UserError: a name is unknown.
    """
    if words is None:
        return None
    names = [name.strip() for name in words.split(",") if name.strip()]
    unknown = [name for name in names if name not in COLUMNS]
    if unknown or not names:
        found = f"{unknown[0]}: unknown column" if unknown else f"{words!r}: expected names of columns"
        raise UserError(f"--columns {found}; known: {', '.join(COLUMNS)}")
    return tuple(dict.fromkeys(names))


def flat(table: Table, columns: Sequence[str] | None = None) -> Sheet:
    """Return one row for each cell of the table, with `columns` or the default ones."""
    labels, rows = _labels(table), table.by_cell
    headings = [Heading(label, label, is_number=label == "heads") for label in labels]
    parts = [[Entry(value) for value in labels[label]] for label in labels]
    for column in _chosen(table, columns):
        unit, entries = column.entries(rows)
        headings.append(_heading(column, unit, table.metric))
        parts.append(entries)
    return Sheet(tuple(headings), tuple(zip(*parts, strict=True)), table.footnotes)


def pivot(table: Table, rows: Sequence[str], cols: Sequence[str], columns: Sequence[str] | None = None) -> Sheet:
    """Return one row for each value of the axes `rows`, and a group of `columns` for each value of the axes `cols`.

    Where some runs of a cell have finished, their numbers are shown; the footnotes name the others.

    Raises:
        UserError: an axis is given twice, or is missing though the cells differ in it.
    """
    labels = _labels(table)
    _check_axes(labels, rows, cols, table.tuned)
    chosen = [COLUMNS[name] for name in columns or (table.metric,)]
    cells = table.by_cell
    down, across = _keys(labels, rows, len(cells)), _keys(labels, cols, len(cells))
    entries = [column.entries(cells) for column in chosen]
    places = {place: at for at, place in enumerate(zip(down, across, strict=True))}
    headings = [Heading(axis, axis, is_number=axis == "heads") for axis in rows]
    for key in dict.fromkeys(across):
        group = ", ".join(f"{axis} {value}" for axis, value in zip(cols, key, strict=True))
        headings += [
            replace(_heading(c, unit, table.metric), group=group) for c, (unit, _) in zip(chosen, entries, strict=True)
        ]
    body = []
    for key in dict.fromkeys(down):
        found = [places.get((key, other)) for other in dict.fromkeys(across)]
        numbers = [ABSENT if at is None else of[at] for at in found for _, of in entries]
        body.append((*map(Entry, key), *numbers))
    return Sheet(tuple(headings), tuple(body), table.footnotes)


def _check_axes(labels: dict[str, list[str]], rows: Sequence[str], cols: Sequence[str], tuned: Sequence[str]) -> None:
    twice = [axis for axis in rows if axis in cols]
    if twice:
        raise UserError(f"--rows {twice[0]} --cols {twice[0]}: expected each axis in one of the two")
    lost = [axis for axis, values in labels.items() if axis not in (*rows, *cols, *tuned) and len(set(values)) > 1]
    if lost:
        rows_and_lost = ",".join([*rows, *lost])
        raise UserError(
            f"the cells differ in {', '.join(lost)}, too; add it to --rows or --cols, e.g. --rows {rows_and_lost}"
        )


def _labels(table: Table) -> dict[str, list[str]]:
    """Return axis -> its value in each cell."""
    rows = table.by_cell
    labels = {"head": [row.head for row in rows], "heads": [str(row.heads) for row in rows]}
    return labels | {axis: [row.axes[at] for row in rows] for at, axis in enumerate(table.axes)}


def _keys(labels: dict[str, list[str]], axes: Sequence[str], count: int) -> list[tuple[str, ...]]:
    return [tuple(labels[axis][at] for axis in axes) for at in range(count)]


def _chosen(table: Table, columns: Sequence[str] | None) -> list[Column]:
    if columns is not None:
        return [COLUMNS[name] for name in columns]
    default = [COLUMNS[name] for name in _default(table)]
    return [column for column in default if not (column.if_any and _is_empty(column, table.rows))]


def _default(table: Table) -> list[str]:
    """Return the default columns: the compared metric in the place of top-1, and no speed that follows the load."""
    names = dict.fromkeys(table.metric if name == "top1" else name for name in DEFAULT)
    return [name for name in names if name not in CLOCKS or not unsteady(table.rows, name)]


def _is_empty(column: Column, rows: Sequence[Row]) -> bool:
    return all(entry == ABSENT for entry in column.entries(rows)[1])


def _heading(column: Column, unit: str, metric: str) -> Heading:
    title = column.title.format(metric=METRICS[metric].noun)
    return Heading(column.name, title, unit, is_number=column.is_number)
