"""The comparison of heads, as far as the runs support it (law 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from headsweep.report.read.cells import MISSING, Cell, Run, read_cells, varying_axes, without_damaged
from headsweep.report.stats.inference import LEVEL, Difference, Estimate, estimate, holm, mcnemar_p, paired_difference
from headsweep.report.table import fairness, footnotes, published
from headsweep.report.table.baseline import Baseline, references
from headsweep.report.table.metrics import MEASURES
from headsweep.tracking import atomic_files
from headsweep.tracking.run_folder import RunFolder, RunState
from headsweep.tracking.screening import Screening
from headsweep.tracking.typed_files import Damaged

_WORDS = {
    RunState.new: "not started",
    RunState.partial: "unfinished",
    RunState.running: "running",
    RunState.finished: "finished",
    RunState.diverged: "diverged",
    RunState.failed: "failed",
}
_CLOCKS = ("images_per_second", "train_seconds", "peak_memory_gib", "peak_gpu_memory_gib")


@dataclass(frozen=True)
class Question:
    """What a table is asked beside which runs."""

    baseline: Baseline = field(
        default_factory=dict
    )  # dotted key -> value of the reference; empty: the first row's head
    metric: str = "top1"  # the measure whose differences are tested
    columns: tuple[str, ...] | None = None  # what is shown, by name; None: all that is usually wanted
    axes: tuple[str, ...] = ()  # keys that get a column even if they do not vary; those that vary get one anyway
    query: str = ""  # MLflow's filter that chose the runs
    gone: int = 0  # planned runs whose folders are no more
    damages: tuple[Damaged, ...] = ()  # of planned runs whose folders cannot be read

    @property
    def measures(self) -> tuple[str, ...]:
        """The measures that are shown, what is compared first."""
        others = ("top1", "top5") if self.columns is None else self.columns
        return tuple(dict.fromkeys((self.metric, *(name for name in others if name in MEASURES))))

    def shows(self, *columns: str) -> bool:
        """Is one of these columns shown?"""
        return self.columns is None or not set(columns).isdisjoint(self.columns)


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
    # parameters and flops (one image's forward pass), of the head alone with "head_" before them, and the medians of
    # what the runs measured: images_per_second, train_seconds, peak_memory_gib, peak_gpu_memory_gib
    costs: Mapping[str, float]
    metric: str = "top1"  # the measure that is compared
    estimates: Mapping[str, Estimate] = field(default_factory=dict)  # by name of the measure, shares in [0, 1]
    difference: Difference | None = None  # to the reference, uncorrected
    is_reference: bool = False
    p: float | None = None  # of the difference, corrected for the size of the family
    sign_flip_p: float | None = None  # likewise
    mcnemar_p: float | None = None  # of the only run against the reference's only run, corrected likewise
    flags: tuple[str, ...] = ()  # in what the row is unlike its reference, beside the head
    published: tuple[published.PublishedRow, ...] = ()  # printed rows with the configuration of this one

    @property
    def parameters(self) -> int | None:
        """Of backbone and head."""
        return None if (count := self.costs.get("parameters")) is None else int(count)

    @property
    def top1(self) -> Estimate | None:
        """Of the test images, last weights."""
        return self.estimates.get("top1")

    @property
    def top5(self) -> Estimate | None:
        """Of the test images, last weights."""
        return self.estimates.get("top5")

    @property
    def is_better(self) -> bool:
        """Do the seeds support that this head beats the reference?"""
        return self.p is not None and self.p < LEVEL and self.difference is not None and self.difference.mean > 0


@dataclass(frozen=True)
class Table:
    """Rows in the order of the plan, and what a reader must know about them."""

    axes: tuple[str, ...]  # the columns beside head and heads that tell cells apart
    rows: tuple[Row, ...]
    footnotes: tuple[footnotes.Note, ...]
    metric: str = "top1"  # what is compared
    warnings: tuple[footnotes.Note, ...] = ()  # those of the footnotes that weaken the numbers
    cells: tuple[Cell, ...] = field(default=(), compare=False, repr=False)
    damages: tuple[Damaged, ...] = field(default=(), compare=False, repr=False)  # why runs are left out

    def print(self, console: Console | None = None) -> None:
        """Print to the terminal; columns that do not fit are left out and named."""
        from headsweep.report.formats import terminal

        terminal.show(self, console or terminal.screen())

    def markdown(self) -> str:
        """The table and its footnotes, for people."""
        from headsweep.report.formats import markdown
        from headsweep.report.table.layout import flat

        return markdown.write(flat(self))

    def csv(self) -> str:
        """All numbers in full precision, for machines."""
        from headsweep.report.formats import csv

        return csv.write(self)

    def write(self, folder: Path) -> None:
        """Put table.md and table.csv into `folder`."""
        atomic_files.write_text(folder / "table.md", self.markdown())
        atomic_files.write_text(folder / "table.csv", self.csv())


def build(
    folders: Sequence[RunFolder],
    axes: Sequence[str] = (),
    sources: Sequence[published.Source] = (),
    screening: Screening | None = None,
) -> Table:
    """Compare the runs in `folders`; the head of the first row is the reference.

    Args:
        folders: the runs, in the order of the plan.
        axes: see `Question`.
        sources: published numbers to stand beside ours.
        screening: what successive halving has chosen among the cells.

    Runs that are damaged are left out, which the table says.

    Raises:
        UserError: there is no run, or all are damaged.
    """

    def make(left: Sequence[RunFolder], damages: tuple[Damaged, ...]) -> Table:
        question = Question(axes=tuple(axes), damages=damages)
        return compare(read_cells(left, screening), question, sources, screening)

    return without_damaged(folders, make)


def compare(
    cells: Sequence[Cell],
    question: Question,
    sources: Sequence[published.Source] = (),
    screening: Screening | None = None,
) -> Table:
    """Compare some cells, in their order; `sources` and `screening` are as for `build`.

    Raises:
        UserError: no cell is the baseline.
    """
    axes = tuple(varying_axes(cells, question.axes))
    against = references(cells, axes, question.baseline)
    unlike = fairness.unfair(cells, against)
    rows = [
        replace(row, flags=tuple(map(str, imbalances)))
        for cell, other, imbalances in zip(cells, against, unlike, strict=True)
        for row in _rows(cell, axes, other, question, sources)
    ]
    family = sum(other is not None and other is not cell for cell, other in zip(cells, against, strict=True))
    family += question.gone + len(question.damages)  # each may have been a comparison of its own
    rows = _corrected(rows, family)
    weak = [*footnotes.warnings(cells, axes, question, screening), *fairness.footnotes(unlike)]
    warnings = tuple(map(footnotes.Note, weak))
    printed = map(footnotes.Note, published.footnotes(rows, axes, sources))
    footnotes = (*footnotes.footnotes(cells, rows, question, family), *warnings, *printed)
    return Table(axes, tuple(rows), footnotes, question.metric, warnings, tuple(cells), question.damages)


def _corrected(rows: Sequence[Row], family: int) -> list[Row]:
    """With p for a family of as many differences as cells were planned to be compared."""
    differences = [row.difference for row in rows]
    ps = holm([difference.p if difference else None for difference in differences], family)
    flips = holm([difference.sign_flip_p if difference else None for difference in differences], family)
    pairs = holm([row.mcnemar_p for row in rows], family)
    corrected = zip(rows, ps, flips, pairs, strict=True)
    return [replace(row, p=p, sign_flip_p=flip, mcnemar_p=pair) for row, p, flip, pair in corrected]


def _rows(
    cell: Cell, axes: Sequence[str], reference: Cell | None, question: Question, sources: Sequence[published.Source]
) -> list[Row]:
    """One row for the finished runs, and one for each other way in which runs of the cell stand."""
    by_state: dict[str, list[Run]] = {_WORDS[RunState.finished]: []} if cell.finished else {}
    for run in cell.runs:
        by_state.setdefault(_word(run), []).append(run)
    rows = [_row(cell, axes, state, runs, question.metric) for state, runs in by_state.items()]
    if cell.finished:
        rows[0] = replace(
            _with_numbers(rows[0], cell, reference, question), published=published.matching(cell, sources)
        )
    return rows


def _word(run: Run) -> str:
    return f"screened out at {run.screened_out}" if run.screened_out else _WORDS[run.state]


def _row(cell: Cell, axes: Sequence[str], state: str, runs: Sequence[Run], metric: str) -> Row:
    return Row(
        head=cell.head,
        heads=cell.heads,
        axes=tuple(MISSING if (value := cell.value(axis)) is None else str(value) for axis in axes),
        state=state,
        seeds=tuple(run.record.seed for run in runs),
        planned=len(cell.runs),
        fingerprints=tuple(run.record.fingerprint for run in runs),
        costs=cell.record.cost,
        metric=metric,
    )


def _with_numbers(row: Row, cell: Cell, reference: Cell | None, question: Question) -> Row:
    measures = dict.fromkeys(("top1", "top5", *question.measures))
    values = {name: MEASURES[name].by_seed(cell) for name in measures}
    clocks = {name: cell.clock(name) for name in _CLOCKS}
    compared = reference is not None and reference is not cell
    ours = values[question.metric]
    theirs = MEASURES[question.metric].by_seed(reference) if reference and compared else {}
    return replace(
        row,
        costs={**row.costs, **{name: value for name, value in clocks.items() if value is not None}},
        estimates={name: estimate(list(found.values())) for name, found in values.items() if found},
        difference=paired_difference(ours, theirs) if compared else None,
        is_reference=reference is cell,
        mcnemar_p=_run_against_run(cell, reference) if reference and compared and question.metric == "top1" else None,
    )


def _run_against_run(cell: Cell, reference: Cell) -> float | None:
    """McNemar's p where both have one run, of the same seed, whose answers on each test image are known."""
    runs = [only for it in (cell, reference) if len(it.finished) == 1 for only in it.finished]
    if len(runs) != 2 or runs[0].record.seed != runs[1].record.seed or runs[0].data != runs[1].data:
        return None
    folders = [run.folder for run in runs if run.folder]
    ours, theirs = (folder.test_correct() for folder in folders) if len(folders) == 2 else (None, None)
    if ours is None or theirs is None:
        return None
    if ours.size != theirs.size:
        reason = f"expected {theirs.size} answers, as in {folders[1].correct}, found {ours.size}"
        raise Damaged(folders[0].correct, reason, "remove it, and the run is compared without it")
    return mcnemar_p(ours, theirs)
