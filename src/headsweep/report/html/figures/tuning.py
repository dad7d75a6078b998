"""Tuning curves: the expected test metric of each arm after k of the settings that were tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from headsweep.report.html import scales
from headsweep.report.html.captions import joined
from headsweep.report.html.curves import rows_with, shown_counts
from headsweep.report.html.drawing import Figure, Mark
from headsweep.report.html.labels import metric_axis, metric_label
from headsweep.report.html.selection import Selection, Series
from headsweep.report.stats.tuning_curve import tuning_curve
from headsweep.report.table.metrics import METRICS, Metric, Unit, validation_metric
from headsweep.report.table.model import Table
from headsweep.report.table.tuning import Arm
from headsweep.text import capitalized, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Line = tuple[Series, int, list[tuple[int, float]]]  # number of settings; k and the expected metric in its unit


def tuning(table: Table, selection: Selection) -> list[Figure]:
    """Return a figure for each number of heads; none for a table without tuned arms."""
    arms = {run.record.fingerprint: arm for arm in table.arms for run in arm.chosen.cell.runs}
    counts, left_out = shown_counts(selection)
    figures = []
    for heads in counts:
        lines = [
            (one, len(arm.settings), points)
            for one, row in rows_with(selection, heads)
            if (arm := arms.get(row.fingerprints[0])) and len(points := curve(arm, METRICS[table.metric])) > 1
        ]
        if lines:
            figures.append(_figure(table, heads, lines, left_out))
    return figures


def curve(arm: Arm, metric: Metric) -> list[tuple[int, float]]:
    """Return k and the expected test metric in its unit, from the k on at which some setting kept all of its runs."""
    val = [-math.inf if setting.lost else _mean(metric.scores(setting.val), -math.inf) for setting in arm.settings]
    test = [math.nan if setting.lost else _mean(setting.test, math.nan) for setting in arm.settings]
    values = enumerate(tuning_curve(val, test), start=1)
    return [(k, metric.unit.size * value) for k, value in values if math.isfinite(value)]


def _mean(by_seed: Mapping[int, float], otherwise: float) -> float:
    return fmean(by_seed.values()) if by_seed else otherwise


def _spelled(point: tuple[int, float], unit: Unit) -> str:
    return f"{point[1]:.{unit.decimals}f}{unit.suffix} after {point[0]}"


def _figure(table: Table, heads: int, lines: Sequence[Line], left_out: str) -> Figure:
    unit = METRICS[table.metric].unit

    def draw(axes: Axes) -> None:
        for one, _, points in lines:
            look: dict[str, Any] = {
                "color": one.style.color,
                "linestyle": one.style.dash,
                "marker": one.style.marker,
                "mfc": "none",
            }
            every = max(1, len(points) // 12)
            axes.plot(*zip(*points, strict=True), label=one.label, markevery=every, **look)
        scales.whole_numbers(axes)
        scales.of_metric(unit)(axes, "y")
        axes.set_xlabel("settings tried")
        axes.set_ylabel(f"expected {metric_axis(table)}")

    marks = [
        Mark(k, value, f"{one.label}, {k} of {plural(count, 'setting')}: {value:.{unit.decimals}f}{unit.suffix}")
        for one, count, points in lines
        for k, value in points
    ]
    ends = "; ".join(
        f"{one.label}: {_spelled(points[0], unit)}, {_spelled(points[-1], unit)}" for one, _, points in lines
    )
    chooses = metric_label(validation_metric(table.metric).name)
    caption = joined(
        f"{capitalized(metric_label(table.metric))} to expect if k settings of {', '.join(table.tuned)} had been tried "
        f"and the one with the best {chooses} chosen: the mean over all subsets of k (Tang et al. 2020). The last "
        "points are in the table.",
        left_out,
    )
    title = f"Tuning curves, {plural(heads, 'head')}"
    return Figure(f"tuning-curves-{heads}", title, caption, f"{ends}.", draw, marks=marks)
