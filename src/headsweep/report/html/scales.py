"""Limits and ticks of axes: no axis turns noise into a cliff, or shows what cannot be."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Side = Literal["x", "y"]
LEAST_POINTS = 1.0  # that an axis of accuracies spans at least
_LINE = 28  # letters of a row's name in a line


def from_zero(axes: Axes, side: Side) -> None:
    """Begin an axis of quantities at 0, so that lengths are in proportion."""
    _, high = _limits(axes, side)
    axes.set(**{f"{side}lim": (0, 1.05 * high)})


def in_percent(axes: Axes, side: Side) -> None:
    """Let an axis of percentages span at least LEAST_POINTS, and end a little beyond 0 and 100."""
    low, high = widened(*_limits(axes, side), LEAST_POINTS)
    margin = 0.03 * (high - low)
    axes.set(**{f"{side}lim": (max(low, -margin), min(high, 100 + margin))})


def in_points(axes: Axes, side: Side) -> None:
    """Let an axis of differences show the zero line, and span at least LEAST_POINTS."""
    low, high = _limits(axes, side)
    axes.set(**{f"{side}lim": widened(min(low, 0), max(high, 0), LEAST_POINTS)})


def whole_numbers(axes: Axes, side: Side) -> None:
    """Mark whole numbers alone."""
    from matplotlib.ticker import MaxNLocator

    (axes.xaxis if side == "x" else axes.yaxis).set_major_locator(
        MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])
    )


def heads(axes: Axes, counts: Sequence[int]) -> None:
    """Mark the numbers of heads that were trained, and them alone; doublings are equally far apart."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, _spaced(counts))
    axes.set_xticks([], minor=True)
    axes.set_xlim(counts[0] / 1.25, counts[-1] * 1.25)
    axes.set_xlabel("heads in parallel")


def beside(counts: Sequence[int], series: int) -> float:
    """Return how far apart, in doublings, series stand at one number of heads, so that no marker hides another."""
    places = [math.log2(count) for count in counts]
    nearest = min((later - one for one, later in pairwise(places)), default=1.0)
    return min(0.025 * (places[-1] - places[0] + 0.5), 0.7 * nearest / series)


def rows(axes: Axes, labels: Sequence[str]) -> None:
    """Name rows from top to bottom; a long name has several lines."""
    axes.set_yticks(range(len(labels)), [textwrap.fill(label, _LINE) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)


def rows_height(labels: Sequence[str]) -> float:
    """Return the inches of a figure with such rows, without its legend."""
    lines = max(len(textwrap.wrap(label, _LINE)) for label in labels)
    return 0.9 + (0.12 + 0.15 * lines) * max(len(labels), 3)


def widened(low: float, high: float, least: float) -> tuple[float, float]:
    """Return limits about the same middle that are at least `least` apart."""
    more = max(least - (high - low), 0) / 2
    return low - more, high + more


def _limits(axes: Axes, side: Side) -> tuple[float, float]:
    return axes.get_xlim() if side == "x" else axes.get_ylim()


def _spaced(counts: Sequence[int]) -> list[str]:
    """Return the labels of ticks: none where the one before is too near."""
    least = (math.log2(counts[-1] / counts[0]) + 0.6) / 20
    labels, last = [], -math.inf
    for count in counts:
        has_room = math.log2(count) - last >= least
        labels.append(str(count) if has_room else "")
        last = math.log2(count) if has_room else last
    return labels
