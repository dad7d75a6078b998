"""Seeds that collapse: values so far below the others that a t-interval of their mean does not hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

LEVEL = 0.01  # probability that a normal distribution has a seed that is found here
LEAST_DROP = 0.01  # below the median: with few test images, seeds may differ by one image or not at all
FEW, LEAST_DROP_OF_FEW = 5, 0.05  # of fewer than five seeds, the others are often equal


def collapsed(values: Mapping[int, float]) -> list[int]:
    """Return the seeds of `values`, seed -> accuracy in [0, 1], that lie far below the others, the lowest first.

    Grubbs's test of the lowest value; as several low values hide each other, also of the next lowest without those
    below it, for fewer than half of the values (Rosner 1975), Bonferroni-corrected. With three seeds it finds only what
    lies dozens of standard deviations below, with fewer nothing.
    """
    ranked = sorted(values, key=values.__getitem__)
    most = (len(ranked) - 1) // 2
    least = LEAST_DROP if len(ranked) >= FEW else LEAST_DROP_OF_FEW
    for count in range(most, 0, -1):
        others = [values[seed] for seed in ranked[count - 1 :]]
        drop = others[len(others) // 2] - others[0]
        if len(others) > 2 and drop >= least and _grubbs_p(others) < LEVEL / most:
            return ranked[:count]
    return []


def _grubbs_p(values: Sequence[float]) -> float:
    """Return the p of Grubbs's one-sided test that the first of `values`, the lowest, is no outlier."""
    from scipy import stats

    n = len(values)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    squared = (mean - values[0]) ** 2 / variance
    left = (n - 1) ** 2 - n * squared  # 0 where all the others are equal
    if left <= 1e-12:
        return 0.0
    return min(1.0, n * float(stats.t.sf(math.sqrt(n * (n - 2) * squared / left), n - 2)))
