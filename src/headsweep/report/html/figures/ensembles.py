"""The accuracy of each head alone and of all heads together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from headsweep.report.html import captions, scales
from headsweep.report.html.captions import MOST_ROWS, joined
from headsweep.report.html.drawing import INK, PAPER, Figure, Mark, listed
from headsweep.report.html.labels import cell_label
from headsweep.report.html.selection import Selection
from headsweep.report.html.styles import GREY
from headsweep.report.table.model import Table
from headsweep.tracking.metric_names import TEST_TOP1, head_top1

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CAPTION = "All heads together (their mean logits) and each head alone, on the same tokens."
_SEEDS = (
    "Means over seeds, after sorting the heads of each run: one stroke is the mean of the best head of each seed, the "
    "next that of the second best, and so on."
)


def ensembles(table: Table, selection: Selection) -> Figure | None:
    """Draw the accuracy of each head alone and of all together; None if no cell has several heads."""
    runs = {run.record.fingerprint: run for cell in table.cells for run in cell.runs}
    found = []
    for row in table.rows:
        finished = [
            result.metrics for name in row.fingerprints if runs[name].finished and (result := runs[name].result)
        ]
        numbers = [of_run for metrics in finished if (of_run := _percent(metrics, row.heads))]
        if row.heads > 1 and row.compared and numbers:
            found.append((row, [fmean(values) for values in zip(*numbers, strict=True)]))
    if not found:
        return None
    shown = selection.ranking.best((row for row, _ in found), MOST_ROWS)
    rows = [(row, together, alone) for row, (together, *alone) in found if row in shown]
    labels = [cell_label(table, row) for row, _, _ in rows]

    def draw(axes: Axes) -> None:
        for at, (_, together, alone) in enumerate(rows):
            axes.plot([min(*alone, together), max(*alone, together)], [at, at], color=GREY, linewidth=1)
            labels_ = ("all heads together", "each head alone") if at == 0 else (None, None)
            axes.plot([together], [at], "D", color=INK, mfc=PAPER, label=labels_[0])
            axes.plot(alone, [at] * len(alone), "|", color=INK, markersize=11, mew=1.4, label=labels_[1])
        scales.rows(axes, labels)
        scales.in_percent(axes, "x")
        axes.set_xlabel("test top-1 (%)")

    marks = [
        Mark(together, at, f"{label}: together {together:.2f} %, alone {min(alone):.2f} to {max(alone):.2f} %")
        for at, (label, (_, together, alone)) in enumerate(zip(labels, rows, strict=True))
    ]
    seeds = "One seed each." if all(len(row.seeds) == 1 for row, _, _ in rows) else _SEEDS
    caption, height = joined(_CAPTION, seeds, captions.best_rows(selection, len(found))), scales.rows_height(labels)
    return Figure("each-head-alone", "Each head alone, and all together", caption, listed(marks), draw, height, marks)


def _percent(metrics: Mapping[str, float], heads: int) -> list[float] | None:
    """Return a run's accuracy, then those of its heads alone, descending; None where one is missing or NaN."""
    alone = [metrics.get(f"test/{head_top1(head)}", math.nan) for head in range(1, heads + 1)]
    found = [metrics.get(TEST_TOP1, math.nan), *sorted(alone, reverse=True)]
    return [100 * value for value in found] if all(map(math.isfinite, found)) else None
