"""Build the comparison of heads, claiming no more than the runs support (invariant 7)."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from headsweep.report.read.cells import MEASURED_COSTS, MISSING, TOKEN_COSTS, Cell, Run, read_cells, skip_damaged
from headsweep.report.stats.inference import estimate, holm, mcnemar_p, paired_difference
from headsweep.report.stats.superiority import superiority
from headsweep.report.table import (
    hyperparameters,
    over_images,
    published,
    published_check,
    stored_tokens,
    tuning,
    verdicts,
)
from headsweep.report.table.baseline import name_of_baseline
from headsweep.report.table.metrics import METRICS
from headsweep.report.table.model import Note, Question, Row, Table, expected_seeds
from headsweep.report.table.notes import fairness, footnotes, tested_images, undecided
from headsweep.report.table.pairing import Pairing, pair
from headsweep.tracking.cost import of_model
from headsweep.tracking.design import Design
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunState
from headsweep.tracking.screening import Screening
from headsweep.tracking.typed_files import Damaged


def build(
    folders: Sequence[RunFolder],
    axes: Sequence[str] = (),
    sources: Sequence[published.Source] = (),
    screening: Screening | None = None,
    design: Design | None = None,
) -> Table:
    """Compare the runs in `folders` as their study declares; damaged runs are left out and named in a footnote.

    Args:
        folders: the runs, in the order of the plan.
        axes: see `Question`.
        sources: published results to compare with.
        screening: what successive halving selected among the cells.
        design: what the study declares besides its axes; by default nothing: the head of the first row is the baseline.

    Raises:
        UserError: there is no run, or all are damaged.
    """

    def make(left: Sequence[RunFolder], damages: tuple[Damaged, ...]) -> Table:
        cells = read_cells(left, screening, design.variants if design else None)
        declared = design or Design()
        tune = tuning.varying(cells, declared.tune)
        question = Question(axes=tuple(axes), damages=damages, design=declared, tune=tune, mark=True)
        return compare(cells, replace(question, margin=declared.margin), sources, screening)

    return skip_damaged(folders, make)


def compare(
    cells: Sequence[Cell],
    question: Question,
    sources: Sequence[published.Source] = (),
    screening: Screening | None = None,
) -> Table:
    """Compare cells, in their order; `sources` and `screening` are as for `build`.

    Raises:
        UserError: no cell has the baseline's values, or arms were not tuned alike and `question.mark` is not set.
    """
    paired = pair(cells, question)
    axes = paired.axes
    lost = question.missing + len(question.damages)
    mismatches = fairness.mismatches(paired.cells, paired.against, paired.others, cells, paired.nearest)
    no_claims = undecided.no_claims(bool(paired.unchosen), bool(paired.faults))
    family = paired.differences + lost  # each may have been a comparison of its own
    rows = _flagged_rows(paired, mismatches, question, sources, expected_seeds(cells, lost))
    rows = _corrected(undecided.without_claims(rows, no_claims), family)
    if question.margin:
        rows = verdicts.with_verdicts(rows, question.margin.points, family)
    baseline = name_of_baseline(paired.cells, paired.others, question.baseline, paired.against, question.design)
    warnings = [
        *_pairing_warnings(paired, question),
        *footnotes.warnings(cells, paired.cells, axes, question, screening),
        *fairness.footnotes(mismatches),
        *undecided.footnotes(rows, axes),
    ]
    return Table(
        axes=axes,
        rows=tuple(rows),
        footnotes=(
            *footnotes.footnotes(rows, question, family, baseline, no_claims),
            *_choices(paired, question),
            *stored_tokens.footnotes(cells, question),
            *map(Note, warnings),
            *map(Note, published_check.footnotes(rows, axes, sources)),
        ),
        metric=question.metric,
        margin=question.margin,
        warnings=tuple(map(Note, warnings)),
        tuned=paired.tuned,
        arms=paired.arms,
        cells=tuple(cells),
        damages=question.damages,
        baseline=baseline,
        no_claims=no_claims,
        lost=lost,
    )


def _flagged_rows(
    paired: Pairing,
    mismatches: Sequence[Sequence[fairness.Mismatch]],
    question: Question,
    sources: Sequence[published.Source],
    expected: Collection[int],
) -> list[Row]:
    """Return the rows of all cells, with what is not alike in a cell and its baseline as flags."""
    return [
        replace(row, flags=(*map(str, found), *edges))
        for (cell, baseline, _), found, edges in zip(paired.groups(), mismatches, paired.edges(), strict=True)
        for row in _rows(cell, paired.axes, baseline, question, sources, expected)
    ]


def _pairing_warnings(paired: Pairing, question: Question) -> Iterator[str]:
    """Yield what limits the choice of rows and of what they are compared with."""
    yield from paired.faults
    yield from hyperparameters.footnotes(paired.unchosen, paired.others, paired.cells, paired.against, question.metric)
    yield from tuning.warnings(paired.arms, paired.others)


def _choices(paired: Pairing, question: Question) -> Iterator[Note]:
    """Yield how settings were chosen, and on which images the runs were tested."""
    yield from map(Note, tuning.notes(paired.arms, paired.others, question.tune, question.metric))
    yield from map(Note, tested_images.footnotes(paired.cells, paired.against, METRICS[question.metric]))


def _corrected(rows: Sequence[Row], family: int) -> list[Row]:
    """Correct the p of all rows for a family of as many differences as were planned."""
    differences = [None if row.undecided else row.difference for row in rows]
    ps = holm([difference.p if difference else None for difference in differences], family)
    flips = holm([difference.sign_flip_p if difference else None for difference in differences], family)
    pairs = holm([row.mcnemar_p for row in rows], family)
    corrected = zip(rows, ps, flips, pairs, strict=True)
    return [replace(row, p=p, sign_flip_p=flip, mcnemar_p=pair) for row, p, flip, pair in corrected]


def _rows(
    cell: Cell,
    axes: Sequence[str],
    baseline: Cell | None,
    question: Question,
    sources: Sequence[published.Source],
    expected: Collection[int],
) -> list[Row]:
    """Return one row for the finished runs, and one for each other state that runs of the cell are in."""
    by_state: dict[str, list[Run]] = {RunState.finished.label: []} if cell.finished else {}
    for run in cell.runs:
        by_state.setdefault(_state(run), []).append(run)
    rows = [_row(cell, axes, state, runs, question.metric) for state, runs in by_state.items()]
    others = {row.state: row.seeds for row in rows[1:]}
    rows = [replace(row, is_first=False) for row in rows]
    rows[0] = replace(rows[0], is_first=True, others=others, failed=undecided.failed_runs(cell))
    if not cell.finished and rows[0].failed and baseline is not None and baseline is not cell:
        rows[0] = replace(rows[0], undecided=undecided.gap(cell, METRICS[question.metric]))
    if cell.finished:
        numbers = _with_numbers(rows[0], cell, baseline, question, expected)
        rows[0] = replace(numbers, published=published.matching(cell, sources))
        if question.reads_predictions:
            rows[0] = over_images.with_images(rows[0], cell, baseline)
    return rows


def _state(run: Run) -> str:
    return f"{RunState.screened_out.label} at {run.screened_out}" if run.screened_out else run.state.label


def _row(cell: Cell, axes: Sequence[str], state: str, runs: Sequence[Run], metric: str) -> Row:
    return Row(
        head=cell.head,
        heads=cell.heads,
        axes=tuple(MISSING if (value := cell.value(axis)) is None else str(value) for axis in axes),
        state=state,
        seeds=tuple(run.record.seed for run in runs),
        planned=len(cell.runs),
        fingerprints=tuple(run.record.fingerprint for run in runs),
        costs=of_model(cell.record.cost),
        metric=metric,
    )


def _with_numbers(row: Row, cell: Cell, baseline: Cell | None, question: Question, expected: Collection[int]) -> Row:
    values = {name: METRICS[name].by_seed(cell) for name in dict.fromkeys(("top1", "top5", *question.metrics))}
    measured = {name: found for name in (*MEASURED_COSTS, *TOKEN_COSTS) if (found := cell.measured(name))}
    row = replace(
        row,
        costs={**row.costs, **{name: statistics.median(found) for name, found in measured.items()}},
        ranges={name: (min(found), max(found)) for name, found in measured.items()},
        estimates={name: estimate(list(by_seed.values())) for name, by_seed in values.items() if by_seed},
        is_baseline=baseline is cell,
    )
    if baseline is None or baseline is cell:
        return row
    metric = METRICS[question.metric]
    compared, others = values[question.metric], metric.by_seed(baseline)
    difference = paired_difference(compared, others)
    return replace(
        row,
        baseline=tuple(run.record.fingerprint for run in baseline.finished),
        difference=difference,
        superiority=superiority(metric.scores(compared), metric.scores(others)),
        undecided=undecided.reason(cell, baseline, difference, metric, expected),
        mcnemar_p=_single_run_p(cell, baseline) if question.metric == "top1" else None,
    )


def _single_run_p(cell: Cell, baseline: Cell) -> float | None:
    """Return McNemar's p where both have one run, of the same seed, whose predictions on the test images are known."""
    runs = [only for it in (cell, baseline) if len(it.finished) == 1 for only in it.finished]
    if len(runs) != 2 or runs[0].record.seed != runs[1].record.seed or runs[0].data != runs[1].data:
        return None
    folders = [run.folder for run in runs if run.folder]
    correct, correct_baseline = (folder.test_correct() for folder in folders) if len(folders) == 2 else (None, None)
    if correct is None or correct_baseline is None:
        return None
    if correct.size != correct_baseline.size:
        reason = f"expected {correct_baseline.size} images, as in {folders[1].correct}, found {correct.size}"
        raise Damaged(folders[0].correct, reason, "remove it to compare the run without McNemar's test")
    return mcnemar_p(correct, correct_baseline)
