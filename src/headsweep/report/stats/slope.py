"""How a number of each run changes with the number of heads."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean

from headsweep.report.stats.inference import Difference, paired_difference


def slopes_per_doubling(values: Mapping[int, Mapping[int, float]]) -> dict[int, float]:
    """Return seed -> least-squares slope against log2 of the number of heads, over the seeds that all numbers share.

    Args:
        values: number of heads -> seed -> value, for at least two numbers of heads.
    """
    counts = list(values)
    mean = fmean(map(math.log2, counts))
    places = {count: math.log2(count) - mean for count in counts}
    spread = math.fsum(place**2 for place in places.values())
    shared = [seed for seed in values[counts[0]] if all(seed in of_count for of_count in values.values())]
    return {seed: math.fsum(places[count] * values[count][seed] for count in counts) / spread for seed in shared}


def mean_slope(values: Mapping[int, Mapping[int, float]]) -> Difference | None:
    """Return the mean slope per doubling with its interval and p over seeds; None where no seed is shared."""
    slopes = slopes_per_doubling(values)
    return paired_difference(slopes, dict.fromkeys(slopes, 0.0))
