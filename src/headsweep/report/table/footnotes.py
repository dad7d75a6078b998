"""What is said below a table: how its numbers are made, and everything that weakens them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headsweep.report.read.cells import Cell, Run
from headsweep.report.read.select import named
from headsweep.report.stats.inference import smallest_sign_flip_p
from headsweep.report.table.inconsistencies import code_version, mixtures, seeds_in_words
from headsweep.report.table.metrics import MEASURES
from headsweep.tracking.run_folder import RunState
from headsweep.tracking.screening import Screening

if TYPE_CHECKING:
    from headsweep.report.table.build import Question, Row

MOST_NAMED = 5  # cells


@dataclass(frozen=True)
class Note:
    """A footnote."""

    text: str
    columns: tuple[str, ...] = ()  # that it explains, any of them; none: it stands below whatever is shown
    is_of_bold: bool = False  # it explains the entries that are set off

    def said(self, bold: str) -> str:
        """The sentence; `bold` is how entries are set off."""
        return f"{bold}: {self.text}" if self.is_of_bold else self.text

    def __str__(self) -> str:
        return self.said("Bold")


def footnotes(cells: Sequence[Cell], rows: Sequence[Row], question: Question, family: int) -> Iterator[Note]:
    """How the numbers are made, the general before the particular; `family` is the number of planned differences."""
    if question.query:
        yield Note(f"The runs are those that match: {question.query}.")
    yield from _means(rows, question)
    yield from _differences(cells, rows, question, family)


def warnings(
    cells: Sequence[Cell], axes: Sequence[str], question: Question, screening: Screening | None = None
) -> Iterator[str]:
    """What weakens the numbers, a sentence or two each."""
    runs = [run for cell in cells for run in cell.runs]
    if "metric" in question.query:
        yield "CHOSEN BY RESULT: a filter on metrics chooses runs by what they reached, and their means flatter."
    yield from _screening(cells, screening)
    yield from _gone(question)
    yield from _damaged(question)
    yield from _missing(runs)
    yield from _diverged(cells, axes)
    yield from _numberless(runs, question)
    yield from _no_shares(runs, question)
    yield from (mixture.sentence for mixture in mixtures(cells))
    yield from _code(runs)
    yield from _devices([run for run in runs if run.finished])


def _means(rows: Sequence[Row], question: Question) -> Iterator[Note]:
    yield Note("Top-1 and top-5 are percent of the test images; n is the number of seeds in the mean.")
    if question.shows("images_per_second"):
        speed = "Images/s is the speed of training as it was, beside whatever else the machine did."
        yield Note(speed, ("images_per_second",))
    counted = ("flops", "head_flops", "head_share")
    if question.shows(*counted) and any("flops" in row.costs for row in rows):
        yield Note("FLOPs are those of the products in one image's forward pass, a multiply-add being two.", counted)
    for name in question.measures:
        if MEASURES[name].note:
            yield Note(f"{MEASURES[name].noun.capitalize()}: {MEASURES[name].note}.", (name,))
    yield from map(Note, _spreads(rows, question))


def _spreads(rows: Sequence[Row], question: Question) -> Iterator[str]:
    estimates = [row.estimates[question.metric] for row in rows if question.metric in row.estimates]
    if any(e.half_width is not None for e in estimates):
        yield "± is the half-width of a 95 % t-interval of the mean over seeds."
    if any(e.n == 1 for e in estimates):
        yield "One seed (n = 1) shows no spread: no interval, and no claim that a head is better."
    if any(e.n > 1 and e.half_width is None for e in estimates):
        yield "Where all seeds gave the same number, their spread cannot be estimated: no interval."


def _differences(cells: Sequence[Cell], rows: Sequence[Row], question: Question, family: int) -> Iterator[Note]:
    if not any(row.difference for row in rows):
        return
    bold = (question.metric, "difference")
    is_any_bold = question.shows(*bold) and any(row.is_better for row in rows)
    if question.shows("difference", "p", "p_sign_flip") or is_any_bold:
        yield from map(Note, _paired(cells, rows, question, family))
    if is_any_bold:
        yield Note("better than the reference, p < 0.05.", bold, is_of_bold=True)
    if question.shows("p_mcnemar"):
        yield from map(Note, _mcnemar(rows, question))


def _paired(cells: Sequence[Cell], rows: Sequence[Row], question: Question, family: int) -> Iterator[str]:
    differences = [row.difference for row in rows if row.difference]
    repeated = [d for d in differences if d.n > 1]
    alone = "; its interval stands alone, uncorrected" if any(d.half_width is not None for d in differences) else ""
    what = MEASURES[question.metric].noun
    yield (
        f"Δ is {what} minus that of {_reference(cells, question)} and otherwise the same "
        f"configuration, in points{', paired by seed' if repeated else ''}{alone}."
    )
    if any(d.p is not None for d in differences):
        yield (
            f"p is two-sided, from a paired t-test, corrected for {family} difference{'s' if family > 1 else ''} "
            "(Holm), all that were planned."
        )
    if repeated:
        reach = ", ".join(f"{smallest_sign_flip_p(n):.3g} with n = {n}" for n in sorted({d.n for d in repeated}))
        yield (
            f"A test that does not trust the normal distribution (sign-flip) could reach at best p = {reach}"
            ", before correction."
        )
    if any(d.p is None for d in repeated):
        yield "Where the difference is the same for all seeds, its spread cannot be estimated: no interval and no p."
    if any(row.difference and row.difference.n != row.estimates[question.metric].n for row in rows):
        yield "A difference with its own n counts only the seeds that both heads have."


def _mcnemar(rows: Sequence[Row], question: Question) -> Iterator[str]:
    if any(row.mcnemar_p is not None for row in rows):
        yield (
            "p McNemar* (exact, Holm-corrected) is of the test images on which two runs differ: it speaks of these two "
            "runs, not of these two methods; another seed may turn it around."
        )
    elif question.columns is not None:
        yield (
            "p McNemar* compares the top-1 answers of two single runs of one seed; here no cell and its reference are "
            "that: with more seeds, p and p sign-flip speak of the methods."
        )


def _reference(cells: Sequence[Cell], question: Question) -> str:
    if not question.baseline:
        return f"head {cells[0].head} at the same number of heads"
    return " ".join(f"{key}={value}" for key, value in question.baseline.items())


def _screening(cells: Sequence[Cell], screening: Screening | None) -> Iterator[str]:
    out = [cell for cell in cells if any(run.screened_out for run in cell.runs)]
    if screening is None or not out:
        return
    ends = ", ".join(str(choice.until) for choice in screening.rounds)
    yield (
        f"SCREENED, NOT FULL-LENGTH: {len(out)} of {screening.cells} cells were screened out (halving by "
        f"{screening.eta}) by validation top-1 after epoch {ends} of {screening.epochs}: that they are worse at full "
        f"length was not tested. The others were chosen among {screening.cells} cells, with the same seeds: their "
        "numbers come with that choice."
    )


def _gone(question: Question) -> Iterator[str]:
    if question.gone:
        yield (
            f"PARTIAL: the folders of {question.gone} planned run{'s are' if question.gone > 1 else ' is'} gone, and a "
            "cell that lost all of them with it; p is corrected as if each had been a comparison of its own."
        )


def _damaged(question: Question) -> Iterator[str]:
    if count := len(question.damages):
        yield (
            f"PARTIAL: {count} planned run{'s are' if count > 1 else ' is'} left out, whose files cannot be read: "
            f"{'. '.join(map(str, question.damages))}. p is corrected as if each had been a comparison of its own."
        )


def _numberless(runs: Sequence[Run], question: Question) -> Iterator[str]:
    without = sum(run.finished and MEASURES[question.metric].of(run) is None for run in runs)
    if without:
        yield (
            f"NO NUMBER: {without} finished run{'s have' if without > 1 else ' has'} no value of what is compared, or "
            "one that is not finite; n does not count them."
        )


def _no_shares(runs: Sequence[Run], question: Question) -> Iterator[str]:
    values = [[value for name in question.measures if (value := MEASURES[name].of(run)) is not None] for run in runs]
    impossible = [max(found) for found in values if found and not 0 <= min(found) <= max(found) <= 1]
    if impossible:
        yield (
            f"IMPOSSIBLE: {len(impossible)} run{'s have' if len(impossible) > 1 else ' has'} an accuracy outside 0 to "
            f"100 %, e.g. {100 * impossible[0]:g} %."
        )


def _missing(runs: Sequence[Run]) -> Iterator[str]:
    missing = [run for run in runs if not run.finished and not run.screened_out]
    if not missing:
        return
    counts = Counter(run.state.value for run in missing)
    yield (
        f"PARTIAL: {len(missing)} of {len(runs)} runs have no result "
        f"({', '.join(f'{count} {state}' for state, count in counts.items())}): a mean is over the seeds that finished"
        " and may flatter a head that lost some."
    )


def _diverged(cells: Sequence[Cell], axes: Sequence[str]) -> Iterator[str]:
    """Which runs have diverged; a pivot has no rows for them."""
    found = {
        named(cell, axes): seeds
        for cell in cells
        if (seeds := [run.record.seed for run in cell.runs if run.state is RunState.diverged])
    }
    if found:
        words = [f"{name} ({seeds_in_words(seeds)})" for name, seeds in found.items()]
        more = f"; and {len(words) - MOST_NAMED} more cells" * (len(words) > MOST_NAMED)
        yield f"DIVERGED, in no mean: {'; '.join(words[:MOST_NAMED])}{more}."


def _code(runs: Sequence[Run]) -> Iterator[str]:
    versions = dict.fromkeys(map(code_version, runs))
    if len(versions) == 1 and any(run.record.code.get("dirty") for run in runs):
        yield f"The code had uncommitted changes: {next(iter(versions))}."


def _devices(finished: Sequence[Run]) -> Iterator[str]:
    devices = dict.fromkeys(
        str(run.result.environment["device"]) for run in finished if run.result and "device" in run.result.environment
    )
    if len(devices) > 1:
        yield f"DIFFERENT DEVICES: {', '.join(devices)}. Images/s are not comparable between them."
