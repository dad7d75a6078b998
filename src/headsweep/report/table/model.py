"""A comparison table as data: the question that it answers, its rows and its footnotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from headsweep.report.read.cells import Cell
from headsweep.report.stats.crossed import CrossedEstimate
from headsweep.report.stats.inference import LEVEL, Difference, Estimate
from headsweep.report.stats.superiority import Superiority
from headsweep.report.table.baseline import Baseline
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.published import PublishedRow
from headsweep.report.table.tuning import Arm
from headsweep.tracking.design import Design, Margin
from headsweep.tracking.typed_files import Damaged


@dataclass(frozen=True)
class Question:
    """What a table compares, beside its runs."""

    baseline: Baseline = field(default_factory=dict)  # empty: the head of the first row
    metric: str = "top1"  # whose differences are tested
    columns: tuple[str, ...] | None = None  # names of the columns to show; None: the default ones
    axes: tuple[str, ...] = ()  # keys that get a column even if they do not vary; those that vary get one anyway
    query: str = ""  # MLflow filter that selected the runs
    missing: int = 0  # planned runs whose folders were removed
    damages: tuple[Damaged, ...] = ()  # of planned runs whose folders cannot be read
    design: Design = field(default_factory=Design)  # what the study declares besides its axes
    tune: tuple[str, ...] = ()  # keys whose value is chosen for each arm on validation images
    mark: bool = False  # show arms that were not tuned alike, without a claim, instead of refusing them
    over_images: bool = False  # read the predictions of every run for intervals over images, whatever the columns
    margin: Margin | None = None  # at which the rows get a verdict

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are shown, the compared one first."""
        others = ("top1", "top5") if self.columns is None else self.columns
        return tuple(dict.fromkeys((self.metric, *(name for name in others if name in METRICS))))

    def shows(self, *columns: str) -> bool:
        """Return whether one of these columns is shown."""
        return self.columns is None or not set(columns).isdisjoint(self.columns)

    @property
    def reads_predictions(self) -> bool:
        """Whether the rows get intervals over images, for which the predictions of every run are read."""
        return self.over_images or not {"top1_images", "difference_images"}.isdisjoint(self.columns or ())


@dataclass(frozen=True)
class Verdict:
    """What the difference of a row from its baseline is shown to be, at a margin."""

    claims: tuple[str, ...]  # of: equivalent, better, worse, not worse; none: undecided
    reason: str = ""  # why no claim is made, e.g. "2 seeds"
    not_worse_p: float | None = None  # one-sided, corrected for all planned differences
    equivalent_p: float | None = None  # of the TOST procedure, corrected likewise

    @property
    def text(self) -> str:
        """The verdict in a table, e.g. "equivalent, worse" or "undecided (2 seeds)"."""
        return ", ".join(self.claims) or ("undecided" + f" ({self.reason})" * bool(self.reason))


@dataclass(frozen=True)
class Row:
    """The runs of one cell that are in one state: with numbers if they finished, else only their state."""

    head: str
    heads: int
    axes: tuple[str, ...]  # values in the order of Table.axes
    state: str  # the label of a RunState, or when the cell was screened out
    seeds: tuple[int, ...]
    planned: int  # runs of the cell, in any state
    fingerprints: tuple[str, ...]
    # parameters and flops (of one image's forward pass), those of the head alone with the prefix "head_", and medians
    # of what the runs measured: those of MEASURED_COSTS and TOKEN_COSTS
    costs: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # lowest and highest of what they measured
    metric: str = "top1"  # the compared one
    estimates: Mapping[str, Estimate] = field(default_factory=dict)  # by metric; accuracies in [0, 1], log loss in nats
    difference: Difference | None = None  # from the baseline, uncorrected
    baseline: tuple[str, ...] = ()  # fingerprints of the finished runs that it is compared with
    superiority: Superiority | None = None  # probability that a run is better than the baseline's with the same seed
    verdict: Verdict | None = None  # where the table has a margin
    is_baseline: bool = False
    is_first: bool = True  # of its cell: the finished runs, if there are any; a sheet shows this row alone
    others: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # of a first row: state of others -> seeds
    failed: int = 0  # planned runs of the cell that failed or diverged; counted in the first row of a cell
    undecided: str | None = None  # why the difference supports no claim, e.g. "2 seeds"; it has no corrected p then
    p: float | None = None  # of the difference, corrected for all planned differences
    sign_flip_p: float | None = None  # likewise
    mcnemar_p: float | None = None  # of the only run against the baseline's only run, corrected likewise
    flags: tuple[str, ...] = ()  # in what the row does not match its baseline, beside the head
    # Of test top-1, with intervals that cover the draw of seeds and of test images; None where `no_images` is given, or
    # where the table was not asked for them.
    estimate_over_images: CrossedEstimate | None = None
    difference_over_images: CrossedEstimate | None = None  # from the baseline, over the seeds that both have
    no_images: str = ""
    published: tuple[PublishedRow, ...] = ()  # published rows of the same configuration

    @property
    def compared(self) -> Estimate | None:
        """The estimate of the compared metric."""
        return self.estimates.get(self.metric)

    @property
    def parameters(self) -> int | None:
        """Of backbone and head."""
        return None if (count := self.costs.get("parameters")) is None else int(count)

    @property
    def top1(self) -> Estimate | None:
        """On the test images, with the last weights."""
        return self.estimates.get("top1")

    @property
    def top5(self) -> Estimate | None:
        """On the test images, with the last weights."""
        return self.estimates.get("top5")

    @property
    def is_better(self) -> bool:
        """Whether the row is significantly better than its baseline."""
        if self.undecided is not None or self.p is None or self.difference is None:
            return False
        return self.p < LEVEL and METRICS[self.metric].score(self.difference.mean) > 0


@dataclass(frozen=True)
class Note:
    """A footnote."""

    text: str
    columns: tuple[str, ...] = ()  # it is shown with any of these columns; empty: always
    explains_bold: bool = False  # what bold entries mean


BETTER = Note(f"better than the baseline, p < {LEVEL:g}.", explains_bold=True)


def expected_seeds(cells: Sequence[Cell], lost: int) -> frozenset[int]:
    """Return the seeds that every cell should have, where runs are lost; else each has those that were planned."""
    return frozenset(seed for cell in cells for seed in cell.seeds) if lost else frozenset()


@dataclass(frozen=True)
class Table:
    """Rows in the order of the plan, and what a reader must know about them."""

    axes: tuple[str, ...]  # the keys beside head and heads that distinguish cells
    rows: tuple[Row, ...]
    footnotes: tuple[Note, ...]
    metric: str = "top1"  # the compared one
    margin: Margin | None = None  # of the verdicts
    warnings: tuple[Note, ...] = ()  # those of the footnotes that limit what the numbers show
    tuned: tuple[str, ...] = ()  # those of the axes whose value was chosen for each row on validation images
    arms: tuple[Arm, ...] = field(default=(), compare=False, repr=False)  # what was tried for each row; untuned: none
    cells: tuple[Cell, ...] = field(default=(), compare=False, repr=False)  # all of them, chosen or not
    damages: tuple[Damaged, ...] = field(default=(), compare=False, repr=False)  # why runs are left out
    baseline: str = ""  # what the rows are compared with, e.g. "head=seqpool with the same number of heads"
    no_claims: str | None = None  # why nothing in the table supports a claim, e.g. as settings were not chosen
    lost: int = 0  # planned runs whose folders are missing or cannot be read

    @cached_property
    def expected(self) -> frozenset[int]:
        """As `expected_seeds`."""
        return expected_seeds(self.cells, self.lost)

    @property
    def by_cell(self) -> list[Row]:
        """The first row of each cell."""
        return [row for row in self.rows if row.is_first]
