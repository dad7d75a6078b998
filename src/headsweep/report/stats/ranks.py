"""Compare several arms over several data sets (Demsar 2006): Friedman's test, Nemenyi's critical difference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

from headsweep.report.stats.inference import LEVEL

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEAST_ARMS = 3  # two arms are a paired test
LEAST_SETS = 3  # with two, three arms reach p = 1/6 at best
_MOST_EXACT = 50_000  # orders that are enumerated
_SAMPLES = 50_000
_EQUAL = 1e-9


@dataclass(frozen=True)
class Ranking:
    """Arms ranked on every data set."""

    mean_ranks: tuple[float, ...]  # of each arm; 1 is the best
    statistic: float  # Friedman's chi-squared, corrected for ties
    p: float  # by permutation of the ranks within data sets
    is_exact: bool  # else the permutations are sampled
    critical_difference: float  # Nemenyi's, of mean ranks


def rank_arms(means: Sequence[Sequence[float]]) -> Ranking:
    """Rank arms by their scores, higher is better; one row for each arm, one column for each data set.

    Ties share a mean rank. p is that of all orders of the ranks within each data set: the chi-squared distribution
    needs more than ten sets.
    """
    import numpy as np
    from scipy import stats

    ranks = stats.rankdata(-np.asarray(means, dtype=np.float64).round(12), axis=0)  # (arms, sets)
    arms, sets = ranks.shape
    p, is_exact = _permutation_p(ranks)
    quantile = float(stats.studentized_range.ppf(1 - LEVEL, arms, np.inf)) / math.sqrt(2)
    difference = quantile * math.sqrt(arms * (arms + 1) / (6 * sets))
    return Ranking(tuple(ranks.mean(axis=1).tolist()), friedman(ranks), p, is_exact, difference)


def friedman(ranks: NDArray[Any]) -> float:
    """Return Friedman's chi-squared of ranks, (arms, sets), corrected for ties; 0 if all are tied."""
    arms, sets = ranks.shape
    variance = float(ranks.var(axis=0, ddof=1).sum()) / sets  # arms (arms + 1) / 12 without ties
    if variance <= _EQUAL:
        return 0.0
    return float(sets * ((ranks.mean(axis=1) - (arms + 1) / 2) ** 2).sum()) / variance


def _permutation_p(ranks: NDArray[Any]) -> tuple[float, bool]:
    """Return the share of orders of ranks within sets that give rank sums as unequal, and whether it is exact."""
    import numpy as np

    arms, sets = ranks.shape
    observed = float((ranks.sum(axis=1) ** 2).sum())
    if math.factorial(arms) ** (sets - 1) <= _MOST_EXACT:
        sums = ranks[:, :1].T  # the order within one set is arbitrary: it only names the arms
        orders = list(permutations(range(arms)))
        for at in range(1, sets):
            sums = (sums[:, None, :] + ranks[:, at][orders][None]).reshape(-1, arms)
        return float(np.mean((sums**2).sum(axis=1) >= observed - _EQUAL)), True
    rng = np.random.default_rng(0)
    samples = np.broadcast_to(ranks.T, (_SAMPLES, sets, arms))
    sums = rng.permuted(samples, axis=2).sum(axis=1)
    found = int(((sums**2).sum(axis=1) >= observed - _EQUAL).sum())
    return (found + 1) / (_SAMPLES + 1), False
