"""The expected test metric after k of n tried settings, each choice made on validation images."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headsweep.report.stats.inference import EQUAL


def tuning_curve(val: Sequence[float], test: Sequence[float]) -> list[float]:
    """Return, for k = 1 to n, the mean test metric of the setting that is best on validation images among k of the n.

    The mean over all subsets of size k, in closed form, which is an unbiased estimate (Tang et al. 2020,
    arXiv:2004.13705); that of Dodge et al. 2019 draws the k settings with replacement and is biased. Of settings with
    the same validation metric the first is chosen, as for the arms of a table. NaN where the choice may be NaN.

    Args:
        val: validation metric of each setting; -inf for one that counts as worst.
        test: test metric of each setting, in the same order; NaN for one that has none.

    Raises:
        ValueError: the lengths differ, or there is no setting.
    """
    n = len(val)
    if n != len(test) or not n:
        raise ValueError(f"expected a test metric for each of one or more settings, found {len(test)} for {n}")
    best_first = _best_first(val)
    curve = []
    for k in range(1, n + 1):
        chosen = k / n  # share of the subsets in which a setting is chosen: the best one, wherever it is in a subset
        terms = []
        for worse, at in zip(range(n - 1, k - 2, -1), best_first, strict=False):
            terms.append(chosen * test[at])
            chosen *= (worse - k + 1) / max(worse, 1)  # C(worse - 1, k - 1) / C(worse, k - 1)
        curve.append(math.fsum(terms))
    return curve


def _best_first(val: Sequence[float]) -> list[int]:
    """Return the settings in the order in which they are preferred."""
    levels: dict[int, float] = {}  # setting -> the highest metric among those that are equal to its own
    level = math.inf
    for at in sorted(range(len(val)), key=lambda at: -val[at]):
        level = level if level - val[at] <= EQUAL else val[at]
        levels[at] = level
    return sorted(levels, key=lambda at: (-levels[at], at))
