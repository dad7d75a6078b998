"""Each head alone beside all heads together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headsweep.report.page.comparing import MOST_ROWS, joined, row_axis, rows_height
from headsweep.report.page.drawing import GREY, INK, PAPER, Figure
from headsweep.report.page.series import Selection, best_rows, cell_label, series_label
from headsweep.report.table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def ensembles(table: Table, selection: Selection) -> Figure | None:
    """The accuracy of each head alone beside that of all together; None if no cell has several."""
    runs = {run.record.fingerprint: run for cell in table.cells for run in cell.runs}
    found = []
    for row in (*selection.rows, *selection.others):
        metrics = [run.result.metrics for name in row.fingerprints if (run := runs[name]).result]
        alone = [_mean_of(metrics, f"test/per_head/top1_{k}") for k in range(1, row.heads + 1)]
        together = _mean_of(metrics, "test/top1")
        if row.heads > 1 and together is not None and all(one is not None for one in alone):
            found.append((row, together, [one for one in alone if one is not None]))
    if not found:
        return None
    shown = best_rows((row for row, _, _ in found), MOST_ROWS)
    rows = [entry for entry in found if entry[0] in shown]

    def draw(axes: Axes) -> None:
        for at, (_, together, alone) in enumerate(rows):
            axes.plot([min(*alone, together), max(*alone, together)], [at, at], color=GREY, linewidth=1)
            hollow = {"markerfacecolor": PAPER, "markeredgecolor": GREY, "label": "each head alone"}
            axes.plot(alone, [at] * len(alone), "o", **(hollow if at == 0 else {**hollow, "label": None}))
            axes.plot([together], [at], "D", color=INK, label="all heads together" if at == 0 else None)
        row_axis(axes, [f"{series_label(table, row)}, {row.heads}" for row, _, _ in rows])
        axes.set_xlabel("test top-1 %, mean over seeds")

    alt = "; ".join(
        f"{cell_label(table, row)}: together {together:.2f} %, alone {min(alone):.2f} to {max(alone):.2f} %"
        for row, together, alone in rows
    )
    caption = (
        "Test top-1 of each head alone and of their mean logits, means over seeds. All heads read the same tokens."
    )
    words = f"Shown are the {MOST_ROWS} best of {len(found)} cells." if len(found) > len(rows) else ""
    height = rows_height(len(rows)) + 0.3
    return Figure(
        "each-head-alone", "Each head alone, and all together", joined(caption, words), f"{alt}.", draw, height
    )


def _mean_of(metrics: Sequence[dict[str, float]], name: str) -> float | None:
    values = [known[name] for known in metrics if name in known]
    return 100 * sum(values) / len(values) if values else None
