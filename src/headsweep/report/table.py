"""The comparison of heads, as far as the runs support it (law 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from headsweep.report import notes, published, render
from headsweep.report.results import MISSING, Cell, Run, read_cells, varying_axes
from headsweep.report.statistics import Difference, Estimate, estimate, holm, paired_difference
from headsweep.tracking import durable
from headsweep.tracking.run_folder import RunFolder, RunState
from headsweep.tracking.screening import Screening

_WORDS = {
    RunState.new: "not started",
    RunState.partial: "unfinished",
    RunState.running: "running",
    RunState.finished: "finished",
    RunState.diverged: "diverged",
    RunState.failed: "failed",
}


@dataclass(frozen=True)
class Row:
    """The runs of one cell that ended alike: its numbers if they finished, else only how they stand."""

    head: str
    heads: int
    axes: tuple[str, ...]  # in the order of Table.axes
    state: str  # finished, or the word for what else became of the runs
    seeds: tuple[int, ...]
    planned: int  # runs of the cell in all
    fingerprints: tuple[str, ...]
    parameters: int | None
    flops: int | None  # of one image's forward pass, a multiply-add being two
    head_flops: int | None
    images_per_second: float | None = None  # median of the runs
    top1: Estimate | None = None  # shares in [0, 1], like all that follow
    top5: Estimate | None = None
    difference: Difference | None = None  # of top-1 to the reference, uncorrected
    is_reference: bool = False
    p: float | None = None  # of the difference, corrected for the number of differences in the table
    published: tuple[published.PublishedRow, ...] = ()  # printed rows with the configuration of this one

    @property
    def is_better(self) -> bool:
        """Do the seeds support that this head beats the reference?"""
        return self.p is not None and self.p < 0.05 and self.difference is not None and self.difference.mean > 0


@dataclass(frozen=True)
class Table:
    """Rows in the order of the plan, and what a reader must know about them."""

    axes: tuple[str, ...]  # the columns beside head and heads that tell cells apart
    rows: tuple[Row, ...]
    footnotes: tuple[str, ...]

    def print(self, console: Console | None = None) -> None:
        """Print to the terminal; columns that do not fit are left out and named."""
        render.to_terminal(self, console or Console())

    def markdown(self) -> str:
        """The table and its footnotes, for people."""
        return render.to_markdown(self)

    def csv(self) -> str:
        """All numbers in full precision, for machines."""
        return render.to_csv(self)

    def write(self, folder: Path) -> None:
        """Put table.md and table.csv into `folder`."""
        durable.write_text(folder / "table.md", self.markdown())
        durable.write_text(folder / "table.csv", self.csv())


def build(
    folders: Sequence[RunFolder],
    axes: Sequence[str] = (),
    sources: Sequence[published.Source] = (),
    screening: Screening | None = None,
) -> Table:
    """Compare the runs in `folders`; the head of the first row is the reference.

    Args:
        folders: the runs, in the order of the plan.
        axes: dotted keys that get a column even if they do not vary; those that vary get one anyway.
        sources: published numbers to stand beside ours.
        screening: what successive halving has chosen among the cells.

    Raises:
        UserError: there is no run.
    """
    cells = read_cells(folders, screening)
    columns = varying_axes(cells, axes)
    rows = [row for cell in cells for row in _rows(cell, columns, _reference(cell, cells, columns), sources)]
    corrected = holm([row.difference.p if row.difference else None for row in rows])
    rows = [replace(row, p=p) for row, p in zip(rows, corrected, strict=True)]
    footnotes = [*notes.footnotes(cells, rows, screening), *published.footnotes(rows, columns, sources)]
    return Table(tuple(columns), tuple(rows), tuple(footnotes))


def _reference(cell: Cell, cells: Sequence[Cell], axes: Sequence[str]) -> Cell | None:
    """The cell of the first row's head that agrees with `cell` in everything but the head."""
    shared = [axis for axis in axes if not axis.startswith("head.")]

    def place(other: Cell) -> tuple[str, ...]:
        return (str(other.heads), *(str(other.value(axis)) for axis in shared))

    return next((other for other in cells if other.head == cells[0].head and place(other) == place(cell)), None)


def _rows(cell: Cell, axes: Sequence[str], reference: Cell | None, sources: Sequence[published.Source]) -> list[Row]:
    """One row for the finished runs, and one for each other way in which runs of the cell stand."""
    by_state: dict[str, list[Run]] = {_WORDS[RunState.finished]: []} if cell.finished else {}
    for run in cell.runs:
        by_state.setdefault(_word(run), []).append(run)
    rows = [_row(cell, axes, state, runs) for state, runs in by_state.items()]
    if cell.finished:
        rows[0] = replace(_with_numbers(rows[0], cell, reference), published=published.matching(cell, sources))
    return rows


def _word(run: Run) -> str:
    return f"screened out at {run.screened_out}" if run.screened_out else _WORDS[run.state]


def _row(cell: Cell, axes: Sequence[str], state: str, runs: Sequence[Run]) -> Row:
    cost = cell.record.cost
    return Row(
        head=cell.head,
        heads=cell.heads,
        axes=tuple(MISSING if (value := cell.value(axis)) is None else str(value) for axis in axes),
        state=state,
        seeds=tuple(run.record.seed for run in runs),
        planned=len(cell.runs),
        fingerprints=tuple(run.record.fingerprint for run in runs),
        parameters=cost.get("parameters"),
        flops=cost.get("flops"),
        head_flops=cost.get("head_flops"),
    )


def _with_numbers(row: Row, cell: Cell, reference: Cell | None) -> Row:
    top1, top5 = cell.by_seed("test/top1"), cell.by_seed("test/top5")
    compared = reference is not None and reference is not cell
    return replace(
        row,
        images_per_second=cell.images_per_second(),
        top1=estimate(list(top1.values())) if top1 else None,
        top5=estimate(list(top5.values())) if top5 else None,
        difference=paired_difference(top1, reference.by_seed("test/top1")) if reference and compared else None,
        is_reference=reference is cell,
    )
