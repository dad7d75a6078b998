"""Limits and ticks of axes: none magnifies noise, or extends to impossible values."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from headsweep.report.table.metrics import PERCENT, Unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Side = Literal["x", "y"]
LEAST_POINTS = 1.0  # percentage points that an axis of accuracies spans at least
LEAST_NATS = 0.05
_LINE = 28  # characters in a line of a row's label


def from_zero(axes: Axes, side: Side) -> None:
    """Start an axis at 0, so that lengths are in proportion."""
    _, high = _limits(axes, side)
    axes.set(**{f"{side}lim": (0, 1.05 * high)})


def in_percent(axes: Axes, side: Side) -> None:
    """Let an axis of percentages span at least LEAST_POINTS, within a small margin around [0, 100]."""
    low, high = widened(*_limits(axes, side), LEAST_POINTS)
    margin = 0.03 * (high - low)
    axes.set(**{f"{side}lim": (max(low, -margin), min(high, 100 + margin))})


def in_nats(axes: Axes, side: Side) -> None:
    """Let an axis of losses span at least LEAST_NATS, down to a small margin below 0 at most."""
    low, high = widened(*_limits(axes, side), LEAST_NATS)
    axes.set(**{f"{side}lim": (max(low, -0.03 * (high - low)), high)})


def of_metric(unit: Unit) -> Callable[[Axes, Side], None]:
    """Return what sets the limits of an axis of a metric in `unit`."""
    return in_percent if unit is PERCENT else in_nats


def of_differences(axes: Axes, unit: Unit) -> None:
    """Let a horizontal axis of differences include 0 and span at least LEAST_POINTS or LEAST_NATS."""
    low, high = axes.get_xlim()
    axes.set_xlim(widened(min(low, 0), max(high, 0), LEAST_POINTS if unit is PERCENT else LEAST_NATS))


def whole_numbers(axes: Axes) -> None:
    """Put the ticks of a horizontal axis at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))


def heads(axes: Axes, counts: Sequence[int]) -> None:
    """Put ticks at the trained numbers of heads only, on a log scale."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, _spaced(counts))
    axes.set_xticks([], minor=True)
    axes.set_xlim(counts[0] / 1.25, counts[-1] * 1.25)
    axes.set_xlabel("heads in parallel")


def offset(counts: Sequence[int], series: int) -> float:
    """Return the distance, in doublings, between series at one number of heads, so that markers do not overlap."""
    places = [math.log2(count) for count in counts]
    nearest = min((later - one for one, later in pairwise(places)), default=1.0)
    return min(0.025 * (places[-1] - places[0] + 0.5), 0.7 * nearest / series)


def rows(axes: Axes, labels: Sequence[str]) -> None:
    """Label rows from top to bottom, a long label in several lines."""
    axes.set_yticks(range(len(labels)), [textwrap.fill(label, _LINE) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)


def rows_height(labels: Sequence[str]) -> float:
    """Return the height in inches of a figure with such rows, without its legend."""
    lines = max(len(textwrap.wrap(label, _LINE)) for label in labels)
    return 0.9 + (0.12 + 0.15 * lines) * max(len(labels), 3)


def widened(low: float, high: float, least: float) -> tuple[float, float]:
    """Return limits with the same center that are at least `least` apart."""
    more = max(least - (high - low), 0) / 2
    return low - more, high + more


def _limits(axes: Axes, side: Side) -> tuple[float, float]:
    return axes.get_xlim() if side == "x" else axes.get_ylim()


def _spaced(counts: Sequence[int]) -> list[str]:
    """Return the labels of ticks: "" where the previous label is too close."""
    least = (math.log2(counts[-1] / counts[0]) + 0.6) / 20
    labels, last = [], -math.inf
    for count in counts:
        has_room = math.log2(count) - last >= least
        labels.append(str(count) if has_room else "")
        last = math.log2(count) if has_room else last
    return labels
