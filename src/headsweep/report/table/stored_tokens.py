"""What the stored tokens of frozen backbones cost, and what the same runs would cost without them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from headsweep.report.read.cells import Cell
from headsweep.report.table.model import Note, Question
from headsweep.text import plural, size_of, span

COLUMNS = ("time_live", "token_time", "token_size")
MEANING = Note(
    "Minutes live: training time with the backbone in each step. Token minutes and token GB: all tokens in the folder, "
    "which the rows share.",
    COLUMNS,
)


def footnotes(cells: Sequence[Cell], question: Question) -> Iterator[Note]:
    """Yield the costs of all finished runs on stored tokens, and what the columns are."""
    clocks = [
        (run.result.environment.get("tokens", ""), run.result.clock)
        for cell in cells
        for run in cell.finished
        if run.result is not None and "live_seconds" in run.result.clock
    ]
    if not clocks:
        return
    by_folder: dict[object, list[tuple[float, float]]] = {}
    for folder, clock in clocks:
        by_folder.setdefault(folder, []).append((clock["token_seconds"], clock["token_bytes"]))
    seconds = sum(statistics.median(it for it, _ in costs) for costs in by_folder.values())
    size = sum(max(it for _, it in costs) for costs in by_folder.values())
    heads = sum(clock["train_seconds"] for _, clock in clocks)
    live = heads + sum(clock["live_seconds"] for _, clock in clocks)
    yield Note(
        f"Tokens of the frozen backbone were computed once, in {span(seconds)} ({size_of(round(size))}), for "
        f"{plural(len(clocks), 'run')}, whose heads trained for {span(heads)} in all; with the backbone in each step "
        f"they would take about {span(live)} (the time for the tokens of one image, times the images trained on)."
    )
    if question.columns is not None and question.shows(*COLUMNS):
        yield MEANING
