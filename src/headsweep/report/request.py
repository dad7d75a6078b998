"""A table as it was asked for: the words of the command, which travel with the table so that it can be checked."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headsweep.config.values import read_words
from headsweep.errors import UserError
from headsweep.report.formats import csv, html, json, latex, markdown
from headsweep.report.read.cells import Cell, read_cells, varying_axes, without_damaged
from headsweep.report.read.mlflow_runs import read_stored
from headsweep.report.table import published
from headsweep.report.table.build import Question, Table, compare
from headsweep.report.table.inconsistencies import mixtures
from headsweep.report.table.layout import Sheet, flat, parse_columns, pivot
from headsweep.report.table.metrics import MEASURES
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.typed_files import Damaged

FORMATS = {"markdown": ".md", "csv": ".csv", "latex": ".tex", "html": ".html", "json": ".json"}
COMMAND = "headsweep table "
END = "end of headsweep table"


@dataclass(frozen=True)
class Place:
    """Where the runs are that a source names."""

    output: Path  # folder of sweeps and runs
    uri: str  # MLflow's store
    experiment: str


@dataclass(frozen=True)
class Request:
    """What is asked of which runs; the fields are the options of `headsweep table`."""

    source: str  # a sweep's name, or MLflow's filter
    columns: str | None = None
    rows: str | None = None
    cols: str | None = None
    baseline: tuple[str, ...] = ()
    metric: str = "top1"
    mark: bool = False

    def words(self) -> str:
        """The command that asks for the same again."""
        options: list[tuple[str, str | None]] = [
            ("--columns", self.columns),
            ("--rows", self.rows),
            ("--cols", self.cols),
        ]
        options += [("--baseline", word) for word in self.baseline]
        options += [("--metric", self.metric if self.metric != "top1" else None)]
        words = [self.source, *(word for option, value in options if value for word in (option, value))]
        return COMMAND + shlex.join([*words, *(["--mark"] if self.mark else [])])

    @property
    def is_filter(self) -> bool:
        """Is the source a filter of MLflow's, not a sweep's name?"""
        return any(sign in self.source for sign in ("=", "<", ">", " "))

    def answer(self, place: Place) -> Table:
        """Read the runs and compare them.

        Raises:
            UserError: there are no runs, they must not stand in one table, or an option names what there is not.
        """
        parse_columns(self.columns)
        if self.metric not in MEASURES:
            raise UserError(f"--metric {self.metric}: unknown; known: {', '.join(MEASURES)}")
        if self.is_filter:
            return self._compare(read_stored(place.uri, place.experiment, self.source), None, ())
        sweep = SweepFolder(place.output / "sweeps" / self.source)
        screening = sweep.screening()
        return without_damaged(
            sweep.runs(),
            lambda folders, damages: self._compare(read_cells(folders, screening), sweep, damages),
        )

    def _compare(self, cells: Sequence[Cell], sweep: SweepFolder | None, damages: tuple[Damaged, ...]) -> Table:
        """Compare the cells; `damages` are of the sweep's runs that are left out."""
        columns = parse_columns(self.columns)
        gone = len(sweep.plan()["runs"]) - len(sweep.runs()) if sweep else 0
        axes = (*_axes(self.rows), *_axes(self.cols))
        _check_axes(cells, axes)
        if not self.mark:
            is_whole = not (gone or damages)
            _refuse_mixtures(cells, (*axes, *(sweep.plan()["axes"] if sweep else ())), is_whole)
        if axes and not columns:
            columns = (self.metric,)  # of a pivot
        query = self.source if self.is_filter else ""
        baseline = read_words(self.baseline, "--baseline ")
        question = Question(baseline, self.metric, columns, axes, query, gone, damages)
        sources = published.load(published.FOLDER)
        return compare(cells, question, sources, sweep.screening() if sweep else None)

    def sheet(self, table: Table) -> Sheet:
        """The table laid out as it was asked for."""
        columns = parse_columns(self.columns)
        if not self.rows and not self.cols:
            return flat(table, columns)
        cols = _axes(self.cols)
        rows = _axes(self.rows) or tuple(axis for axis in ("head", "heads", *table.axes) if axis not in cols)
        return pivot(table, rows, cols, columns)

    def text(self, table: Table, layout: str) -> str:
        """The table in one of FORMATS, between two lines that say how it was made where the format has comments."""
        if layout == "csv":
            return csv.write(table)
        if layout == "json":
            return json.write(table, self.words())
        write = {"markdown": markdown.write, "html": html.write, "latex": latex.write}[layout]
        comment = latex.comment if layout == "latex" else markdown.comment
        return f"{comment(self.words())}\n{write(self.sheet(table))}{comment(END)}\n"


def layout_of(path: Path) -> str:
    """The format of a file, from its name.

    Raises:
        UserError: no format has that ending.
    """
    for name, ending in FORMATS.items():
        if path.suffix == ending:
            return name
    raise UserError(f"{path}: want a name that ends in one of {', '.join(FORMATS.values())}")


def _axes(words: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (words or "").split(",") if word.strip())


def _check_axes(cells: Sequence[Cell], axes: Sequence[str]) -> None:
    """Raise UserError where no cell has a value for one of the axes."""
    for axis in axes:
        if not any(cell.has(axis) for cell in cells):
            known = ", ".join(("head", "heads", *varying_axes(cells)))
            raise UserError(f"{axis}: no cell has such a key; the cells differ in: {known}")


def _refuse_mixtures(cells: Sequence[Cell], axes: Sequence[str], is_whole: bool) -> None:
    """Raise UserError for mixtures; seeds that a sweep has lost make it partial, which its table says."""
    found = [mixture for mixture in mixtures(cells, axes) if is_whole or mixture.kind != "seeds"]
    if found:
        sentences = " ".join(mixture.sentence for mixture in found)
        raise UserError(
            f"these runs do not belong in one table: {sentences} --mark shows them, and says so below the table"
        )
