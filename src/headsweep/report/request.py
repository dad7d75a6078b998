"""A requested table: the options of `headsweep table`, which are written with the table so that it can be verified."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headsweep.config.values import read_words
from headsweep.errors import UserError
from headsweep.report.formats import csv, html, json, latex, markdown
from headsweep.report.read.axes import varying_axes
from headsweep.report.read.cells import Cell, read_cells, skip_damaged
from headsweep.report.read.tracked import read_tracked
from headsweep.report.table import hyperparameters, published, tuning
from headsweep.report.table.build import compare
from headsweep.report.table.inconsistencies import inconsistencies
from headsweep.report.table.layout import Sheet, flat, parse_columns, pivot
from headsweep.report.table.metrics import METRICS, PERCENT, Metric, Unit
from headsweep.report.table.model import Question, Table
from headsweep.report.table.over import OVER
from headsweep.selection import refuse_selection
from headsweep.tracking.design import Design, Margin
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.tracker import Tracker
from headsweep.tracking.typed_files import Damaged

FORMATS = {"markdown": ".md", "csv": ".csv", "latex": ".tex", "html": ".html", "json": ".json"}
COMMAND = "headsweep table "
END = "end of headsweep table"
NO_TUNING = "none"
FILTER = "params.`head.name` = 'ga'"  # an example


@dataclass(frozen=True)
class Location:
    """Where the runs of a source are."""

    output: Path  # folder of sweeps and runs
    tracker: Tracker  # for a source that is a filter


@dataclass(frozen=True)
class Request:
    """A source of runs and what to show of them; the fields are the options of `headsweep table`."""

    source: str  # name of a sweep, or MLflow filter
    columns: str | None = None
    rows: str | None = None
    cols: str | None = None
    baseline: tuple[str, ...] = ()
    metric: str = "top1"
    tune: tuple[str, ...] = ()  # empty: what the study declares
    over: str | None = None  # one of OVER: show its table instead
    mark: bool = False
    margin: float | None = None  # in the unit of the metric; None: the one that the study declares

    def command(self) -> str:
        """Return the command that makes the same table."""
        options: list[tuple[str, str | None]] = [
            ("--columns", self.columns),
            ("--rows", self.rows),
            ("--cols", self.cols),
            ("--over", self.over),
        ]
        options += [("--baseline", word) for word in self.baseline]
        options += [("--metric", self.metric if self.metric != "top1" else None)]
        options += [("--tune", key) for key in self.tune]
        options += [("--margin", None if self.margin is None else str(self.margin))]
        words = [self.source, *(word for option, value in options if value for word in (option, value))]
        return COMMAND + shlex.join([*words, *(["--mark"] if self.mark else [])])

    @property
    def is_filter(self) -> bool:
        """Is the source an MLflow filter, not the name of a sweep?"""
        return any(sign in self.source for sign in ("=", "<", ">", " "))

    def table(self, location: Location, over_images: bool = False) -> Table:
        """Read the runs and compare them; `over_images` as in `Question`.

        Raises:
            UserError: there are no runs, they are inconsistent, or an option names what does not exist.
        """
        parse_columns(self.columns)
        if self.metric not in METRICS:
            raise UserError(f"--metric {self.metric}: unknown metric; known: {', '.join(METRICS)}")
        if self.margin is not None:
            check_margin(self.margin, METRICS[self.metric].unit)
        if self.is_filter:
            refuse_selection(self.source, "a sweep or an MLflow filter", f'a filter is written as "{FILTER}"')
            return self._compare(read_tracked(location.tracker, self.source), None, (), over_images)
        sweep = SweepFolder(OutputFolder(location.output).sweeps / self.source)
        screening = sweep.screening()
        return skip_damaged(
            sweep.runs(),
            lambda folders, damages: self._compare(
                read_cells(folders, screening, sweep.design().variants), sweep, damages, over_images
            ),
        )

    def _compare(
        self, cells: Sequence[Cell], sweep: SweepFolder | None, damages: tuple[Damaged, ...], over_images: bool
    ) -> Table:
        """Compare the cells; `damages` are those of the sweep's runs that are left out."""
        columns = parse_columns(self.columns)
        missing = len(sweep.plan()["runs"]) - len(sweep.runs()) if sweep else 0
        design = sweep.design() if sweep else Design()
        _check_logged(cells, METRICS[self.metric])
        axes = (*_axes(self.rows), *_axes(self.cols))
        _check_axes(cells, axes)
        baseline = read_words(self.baseline, "--baseline ")
        tune = self._tune(cells, design)
        tuning.check_baseline(tune, baseline)
        if not self.mark:
            is_complete = not (missing or damages)
            _check_consistency(cells, (*axes, *tune, *(sweep.plan()["axes"] if sweep else ())), is_complete)
        if axes and not columns:
            columns = (self.metric,)  # of a pivot
        query = self.source if self.is_filter else ""
        question = Question(
            baseline, self.metric, columns, axes, query, missing, damages, design, tune, self.mark, over_images
        )
        question = replace(question, margin=self._margin(cells, design))
        sources = published.load(published.FOLDER)
        return compare(cells, question, sources, sweep.screening() if sweep else None)

    def _tune(self, cells: Sequence[Cell], design: Design) -> tuple[str, ...]:
        """Return the keys to tune; `--tune none` shows all settings of a study that declares some."""
        if self.tune == (NO_TUNING,):
            return ()
        if not self.tune:
            return tuning.varying(cells, design.tune)
        hyperparameters.check_tuned(cells, self.tune)
        return tuple(dict.fromkeys(self.tune))

    def _margin(self, cells: Sequence[Cell], design: Design) -> Margin | None:
        """Return the margin of the study, or else the given one, with the number of runs that had finished by now.

        A study declares it in percentage points, so for metrics in them.
        """
        declared = design.margin if METRICS[self.metric].unit is PERCENT else None
        if self.margin is None or (declared is not None and declared.points == self.margin):
            return declared
        return Margin(self.margin, sum(len(cell.finished) for cell in cells))

    def sheet(self, table: Table) -> Sheet:
        """Return the table with the requested columns, as the requested pivot, or over the requested axis.

        Raises:
            UserError: an axis of the pivot is missing, or the table cannot be shown over that axis.
        """
        if self.over:
            if self.columns or self.rows or self.cols:
                raise UserError(f"--over {self.over}: expected no --columns, --rows or --cols, which it does not have")
            sheet = OVER[self.over](table)
            return replace(sheet, footnotes=(*sheet.footnotes, *table.warnings))
        columns = parse_columns(self.columns)
        if not self.rows and not self.cols:
            return flat(table, columns)
        cols = _axes(self.cols)
        rows = _axes(self.rows) or tuple(
            axis for axis in ("head", "heads", *table.axes) if axis not in (*cols, *table.tuned)
        )
        return pivot(table, rows, cols, columns)

    def text(self, table: Table, layout: str) -> str:
        """Return the table in one of FORMATS, between comments with its command where the format has comments."""
        if layout == "csv":
            return csv.write(table)
        if layout == "json":
            return json.write(table, self.command())
        write = {"markdown": markdown.write, "html": html.write, "latex": latex.write}[layout]
        comment = latex.comment if layout == "latex" else markdown.comment
        return f"{comment(self.command())}\n{write(self.sheet(table))}{comment(END)}\n"


def layout_of(path: Path) -> str:
    """Return the format of a file by its suffix.

    Raises:
        UserError: the suffix is unknown.
    """
    for name, ending in FORMATS.items():
        if path.suffix == ending:
            return name
    raise UserError(f"{path}: expected a file name with one of the suffixes {', '.join(FORMATS.values())}")


def check_margin(margin: float, unit: Unit = PERCENT) -> None:
    """Raise UserError for a margin that is not one in the unit of the compared metric."""
    try:
        Margin(margin).check()
    except ValueError:
        raise UserError(f"--margin {margin:g}: expected {unit.difference} in (0, 100), e.g. 0.3") from None


def _axes(words: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (words or "").split(",") if word.strip())


def _check_axes(cells: Sequence[Cell], axes: Sequence[str]) -> None:
    """Raise UserError where no cell has a value for one of the axes."""
    for axis in axes:
        if not any(cell.has(axis) for cell in cells):
            known = ", ".join(("head", "heads", *varying_axes(cells)))
            raise UserError(f"{axis}: no cell has this key; the cells differ in: {known}")


def _check_logged(cells: Sequence[Cell], metric: Metric) -> None:
    """Raise UserError where no finished run has the metric although its images were evaluated."""
    finished = [run for cell in cells for run in cell.finished]
    if finished and all(map(metric.is_unlogged, finished)):
        raise UserError(
            f"--metric {metric.name}: run {finished[0].record.fingerprint} has no {metric.logged_as}, nor has any "
            f"other: {metric.why_unlogged}; compare another metric, or train the runs again"
        )


def _check_consistency(cells: Sequence[Cell], axes: Sequence[str], is_complete: bool) -> None:
    """Raise UserError for inconsistencies; unequal seeds of an incomplete sweep are a footnote of its table instead."""
    found = [one for one in inconsistencies(cells, axes) if is_complete or one.kind != "seeds"]
    if found:
        sentences = " ".join(one.sentence for one in found)
        raise UserError(
            f"inconsistent runs: {sentences} Add --mark to compare them anyway, with a warning below the table"
        )
