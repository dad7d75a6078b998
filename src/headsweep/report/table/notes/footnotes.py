"""Footnotes of a table: how its numbers are computed, and warnings about what limits them."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from headsweep.report.read.cells import Cell, Run
from headsweep.report.read.select import cell_name
from headsweep.report.stats.collapsed import collapsed
from headsweep.report.stats.inference import smallest_sign_flip_p
from headsweep.report.table import clocks, over_images, verdicts
from headsweep.report.table.inconsistencies import code_version, inconsistencies, seed_list
from headsweep.report.table.metrics import METRICS, PERCENT, measure_of
from headsweep.report.table.model import BETTER, Note, Question, Row
from headsweep.text import capitalized, plural, shortened
from headsweep.tracking.run_record import RunState
from headsweep.tracking.screening import Screening

MOST_NAMED = 5  # cells
# What a filter of MLflow says of a run's result: its metrics, or how and when it ended.
_RESULT = re.compile(r"metric|\bstatus\b|\bend_time\b|headsweep\.(state|nonfinite|screened_out)")
_FAMILY = "p is corrected as if each were a comparison of its own."


def footnotes(
    rows: Sequence[Row], question: Question, family: int, baseline: str, no_claims: str | None
) -> Iterator[Note]:
    """Yield how the numbers are computed, the general first.

    Args:
        rows: of the table.
        question: that it answers.
        family: the number of planned differences.
        baseline: name of what the rows are compared with.
        no_claims: as in `Table`.
    """
    yield from _means(rows, question)
    yield from _differences(rows, question, family, baseline, no_claims)
    yield from (Note(text, over_images.COLUMNS) for text in over_images.footnotes(rows))
    yield from (Note(text, ("verdict",)) for text in verdicts.footnotes(rows, question, family))
    yield from (Note(text, ("p_better",)) for text in _superiority(rows, question))


def warnings(
    cells: Sequence[Cell],
    shown: Sequence[Cell],
    axes: Sequence[str],
    question: Question,
    screening: Screening | None = None,
) -> Iterator[str]:
    """Yield what limits the numbers, in a sentence or two each; `shown` are those of the cells that have rows."""
    runs = [run for cell in cells for run in cell.runs]
    yield from _filter(question.query)
    yield from verdicts.warnings(question)
    yield from _screening(cells, screening)
    yield from _missing_folders(question)
    yield from _damaged(question)
    yield from _without_result(runs)
    yield from _without_row(shown, axes)
    yield from _diverged(cells, axes)
    yield from _collapsed(shown, axes, question)
    yield from _without_value(runs, question)
    yield from _out_of_range(runs, question)
    yield from (inconsistency.sentence for inconsistency in inconsistencies(cells))
    yield from _uncommitted(runs)
    yield from _devices([run for run in runs if run.finished])


def _filter(query: str) -> Iterator[str]:
    """Yield what a filter leaves out."""
    if query:
        yield (
            f"Runs selected by the MLflow filter: {query}. A planned run that it leaves out is counted nowhere, "
            "neither as missing nor in the correction of p."
        )
    if _RESULT.search(query):
        yield (
            "SELECTED BY RESULT: the filter selects runs by their metrics or by how they ended, so means are biased."
        )


def _means(rows: Sequence[Row], question: Question) -> Iterator[Note]:
    what = "Top-1 and top-5 are accuracies" if question.shows("top5") else "Top-1 is accuracy"
    measures = {measure_of(name) for name in question.metrics}
    accuracies = f"{what} on the test images in percent; " * bool(measures & {"top1", "top5"})
    yield Note(f"{accuracies}{_seeds(rows, question)}.")
    own_n = [name for name in question.metrics if any(_has_own_n(row, name) for row in rows)]
    if own_n:
        yield Note("A metric with its own n covers only the seeds that have a value of it.", tuple(own_n))
    yield from clocks.footnotes(rows, question)
    counted = ("flops", "head_flops", "head_share")
    if question.shows(*counted) and any("flops" in row.costs for row in rows):
        flops = (
            "FLOPs are those of matrix products and convolutions in one image's forward pass; a multiply-add is two."
        )
        yield Note(flops, counted)
    for name in question.metrics:
        if METRICS[name].note:
            yield Note(f"{capitalized(METRICS[name].noun)}: {METRICS[name].note}.", (name,))
    yield from map(Note, _intervals(rows))


def _seeds(rows: Sequence[Row], question: Question) -> str:
    """Explain n, with its values where the table has no column for it."""
    found = sorted({row.compared.n for row in rows if row.compared})
    if question.shows("n") or not found:
        return "n is the number of seeds in the mean"
    if len(found) == 1:
        return f"n, the number of seeds in the mean, is {found[0]}"
    return f"n, the number of seeds in the mean, is {found[0]} to {found[-1]} (column n)"


def _has_own_n(row: Row, name: str) -> bool:
    return name in row.estimates and row.estimates[name].n != (row.compared.n if row.compared else 0)


def _intervals(rows: Sequence[Row]) -> Iterator[str]:
    estimates = [row.compared for row in rows if row.compared]
    if any(e.half_width is not None for e in estimates):
        yield "± is the half-width of the 95 % confidence interval (Student's t) of the mean over seeds."
    if any(e.n == 1 for e in estimates):
        yield "One seed (n = 1) has no confidence interval, and no head is claimed to be better by it."
    if any(e.n > 1 and e.half_width is None for e in estimates):
        yield "Where all seeds have the same value, the spread cannot be estimated: no interval."


def _differences(
    rows: Sequence[Row], question: Question, family: int, baseline: str, no_claims: str | None
) -> Iterator[Note]:
    if not any(row.difference for row in rows):
        return
    bold = (question.metric, "difference")
    is_any_bold = question.shows(*bold) and any(row.is_better for row in rows)
    if question.shows("difference", "p", "p_sign_flip") or is_any_bold:
        yield from map(Note, _paired(rows, question, family, baseline))
        if any(row.sign_flip_p is not None for row in rows):
            yield Note("p sign-flip is that of a sign-flip permutation test, corrected as p is.", ("p_sign_flip",))
    elif question.shows("difference_images", "p_better", "verdict", "p_mcnemar", "flags"):
        yield Note(f"The baseline is {_as_paired(question, baseline)}.")
    if is_any_bold:
        yield replace(BETTER, columns=bold)
    if question.shows("p_mcnemar"):
        yield from map(Note, _mcnemar(rows, question, no_claims))


def _paired(rows: Sequence[Row], question: Question, family: int, baseline: str) -> Iterator[str]:
    differences = [row.difference for row in rows if row.difference]
    repeated = [d for d in differences if d.n > 1]
    yield (
        f"Δ is the difference in {METRICS[question.metric].noun} from the baseline "
        f"({_as_paired(question, baseline)}), in {METRICS[question.metric].unit.difference}"
        f"{', paired by seed' if repeated else ''}."
    )
    if any(d.half_width is not None for d in differences):
        yield "The confidence interval of a difference is not corrected for multiple comparisons."
    if any(d.p is not None for d in differences):
        yield (
            "p is two-sided, from a paired t-test, corrected for multiple comparisons (Holm) over "
            f"{plural(family, 'planned difference')}."
        )
    if repeated:
        limits = ", ".join(f"{smallest_sign_flip_p(n):.3g} with n = {n}" for n in sorted({d.n for d in repeated}))
        yield f"The smallest p that a sign-flip permutation test can reach is {limits}, before correction."
    if any(d.p is None for d in repeated):
        yield "Where the difference is the same for all seeds, its spread cannot be estimated: no interval and no p."
    if any(row.difference and row.compared and row.difference.n != row.compared.n for row in rows):
        yield "A difference with its own n covers only the seeds that the cell and its baseline share."


def _mcnemar(rows: Sequence[Row], question: Question, no_claims: str | None) -> Iterator[str]:
    if any(row.mcnemar_p is not None for row in rows):
        yield (
            "p McNemar* (exact, Holm-corrected) compares the predictions of two single runs on the test images. It "
            "holds for these two runs, not for the two heads: another seed may reverse it."
        )
    elif question.columns is not None and not no_claims:
        yield (
            "p McNemar* compares the predictions of two single runs with the same seed; no cell in this table and its "
            "baseline are such a pair. With several seeds, p and p sign-flip compare the heads."
        )


def _superiority(rows: Sequence[Row], question: Question) -> Iterator[str]:
    if any(row.superiority for row in rows) and "p_better" in (question.columns or ()):
        metric = METRICS[question.metric]
        yield (
            f"P(better) is the probability that a run has a {'higher' if metric.sign > 0 else 'lower'} {metric.noun} "
            "than the baseline's run with the same seed, with its exact 95 % interval (Clopper and Pearson), not "
            "corrected for multiple comparisons; a tie counts half."
        )


def _as_paired(question: Question, baseline: str) -> str:
    but = f" but for {' and '.join(question.tune)}" if question.tune else ""
    return f"{baseline}, and otherwise the same configuration{but}"


def _screening(cells: Sequence[Cell], screening: Screening | None) -> Iterator[str]:
    out = [cell for cell in cells if any(run.screened_out for run in cell.runs)]
    if screening is None or not out:
        return
    ends = ", ".join(str(choice.until) for choice in screening.rounds)
    yield (
        f"SCREENED, NOT FULL-LENGTH: {len(out)} of {screening.cells} cells were stopped early by successive halving "
        f"(eta={screening.eta}), by validation top-1 after epoch {ends} of {screening.epochs}; whether they are worse "
        "at full length was not tested. The other cells were selected with the same seeds, which biases their numbers."
    )


def _missing_folders(question: Question) -> Iterator[str]:
    if question.missing:
        yield (
            f"PARTIAL: the folders of {plural(question.missing, 'planned run')} are missing; a cell that lost all of "
            f"its runs has no row. {_FAMILY}"
        )


def _damaged(question: Question) -> Iterator[str]:
    if question.damages:
        yield (
            f"PARTIAL: {plural(len(question.damages), 'planned run')} left out because of damaged files: "
            f"{'. '.join(map(str, question.damages))}. {_FAMILY}"
        )


def _without_result(runs: Sequence[Run]) -> Iterator[str]:
    missing = [run for run in runs if not run.finished and not run.screened_out]
    if missing:
        counts = Counter(run.state.label for run in missing)
        have = "has" if len(missing) == 1 else "have"
        yield (
            f"PARTIAL: {len(missing)} of {len(runs)} runs {have} no result "
            f"({', '.join(f'{count} {state}' for state, count in counts.items())}); means cover only the finished "
            "seeds, which may favor a head whose worst seeds are missing."
        )


def _without_row(cells: Sequence[Cell], axes: Sequence[str]) -> Iterator[str]:
    """Name the runs whose states are not shown, as the row of their cell has the numbers of others."""
    found: dict[str, list[str]] = {}
    for cell in (cell for cell in cells if cell.finished):
        seeds: dict[str, list[int]] = {}
        for run in cell.runs:
            if not run.finished and not run.screened_out and run.state is not RunState.diverged:
                seeds.setdefault(run.state.label, []).append(run.record.seed)
        if seeds:
            found[cell_name(cell, axes)] = [f"{seed_list(those)} {state}" for state, those in seeds.items()]
    if found:
        yield f"NOT IN ANY MEAN: {_named(found)}."


def _diverged(cells: Sequence[Cell], axes: Sequence[str]) -> Iterator[str]:
    """Name the diverged runs."""
    found = {
        cell_name(cell, axes): [seed_list(seeds)]
        for cell in cells
        if (seeds := [run.record.seed for run in cell.runs if run.state is RunState.diverged])
    }
    if found:
        yield f"DIVERGED, not in any mean: {_named(found)}."


def _named(found: Mapping[str, Sequence[str]]) -> str:
    """Return the names of the first cells, each with what was found in it."""
    return shortened([f"{name} ({', '.join(details)})" for name, details in found.items()], MOST_NAMED, "; ")


def _collapsed(cells: Sequence[Cell], axes: Sequence[str], question: Question) -> Iterator[str]:
    """Name the seeds that lie so far below the others of their cell that its interval does not hold."""
    found = []
    metric = METRICS[question.metric]
    size, decimals = metric.unit.size, metric.unit.decimals
    for cell in cells:
        values = metric.by_seed(cell)
        if low := collapsed(metric.scores(values)):
            median = size * statistics.median(values.values())
            seeds = ", ".join(f"seed {seed} {size * values[seed]:.{decimals}f}" for seed in low)
            found.append(f"{cell_name(cell, axes)} ({seeds}, median {median:.{decimals}f})")
    if found:
        yield (
            f"COLLAPSED SEEDS: {shortened(found, MOST_NAMED, '; ')}. The ± of a mean assumes a normal distribution; "
            "where single seeds collapse it covers less than 95 %. Intervals of differences hold. By chance this note "
            "names 1 cell in 100."
        )


def _without_value(runs: Sequence[Run], question: Question) -> Iterator[str]:
    metric = METRICS[question.metric]
    without = sum(run.finished and metric.of(run) is None for run in runs)
    unlogged = sum(run.finished and metric.is_unlogged(run) for run in runs)
    if without:
        why = f" ({unlogged} have no {metric.logged_as}: {metric.why_unlogged})" if unlogged else ""
        yield f"NO VALUE: {plural(without, 'finished run')} without a finite {metric.noun}, not counted in n{why}."


def _out_of_range(runs: Sequence[Run], question: Question) -> Iterator[str]:
    shares = [METRICS[name] for name in question.metrics if METRICS[name].unit is PERCENT]
    values = [[value for metric in shares if (value := metric.of(run)) is not None] for run in runs]
    impossible = [max(found) for found in values if found and not 0 <= min(found) <= max(found) <= 1]
    if impossible:
        yield (
            f"INVALID: {plural(len(impossible), 'run')} with an accuracy outside [0, 100] %, e.g. "
            f"{100 * impossible[0]:g} %."
        )


def _uncommitted(runs: Sequence[Run]) -> Iterator[str]:
    versions = dict.fromkeys(map(code_version, runs))
    if len(versions) == 1 and any(run.record.code.get("dirty") for run in runs):
        yield f"UNCOMMITTED CHANGES: the runs were trained from a dirty working tree ({next(iter(versions))})."


def _devices(finished: Sequence[Run]) -> Iterator[str]:
    devices = dict.fromkeys(
        str(run.result.environment["device"]) for run in finished if run.result and "device" in run.result.environment
    )
    if len(devices) > 1:
        yield f"DIFFERENT DEVICES: {', '.join(devices)}. Images/s are not comparable across devices."
