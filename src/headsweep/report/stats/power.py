"""How many seeds a difference needs: the power of the paired t-test, by the noncentral t distribution.

Differences are those of two cells with the same seed; their standard deviation is what the seeds so far have shown.
The correction for several differences is Bonferroni's, which asks at least as much as Holm's does of any of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from headsweep.report.read.cells import Cell
from headsweep.report.stats.inference import CONFIDENCE, smallest_sign_flip_p

MOST_SEEDS = 9_999  # that a command takes (`seeds=N`)


@dataclass(frozen=True)
class Spread:
    """The standard deviation of `n` paired differences and its 95 % interval, which assumes that they are normal."""

    deviation: float
    n: int
    low: float
    high: float


def spread(differences: Sequence[float]) -> Spread | None:
    """How far paired differences scatter; None where fewer than two, or equal ones, cannot say.

    The interval is that of the chi-square distribution: with n = 3 its upper end is 6.3 times the estimate.
    """
    n = len(differences)
    if n < 2 or max(differences) - min(differences) <= 1e-12:
        return None
    from scipy import stats

    deviation = statistics.stdev(differences)
    tail = (1 - CONFIDENCE) / 2
    low, high = (deviation * math.sqrt((n - 1) / stats.chi2.ppf(q, n - 1)) for q in (1 - tail, tail))
    return Spread(deviation, n, float(low), float(high))


def power(n: int, difference: float, deviation: float, alpha: float) -> float:
    """The chance that a two-sided paired t-test over `n` >= 2 seeds finds a true `difference` at level `alpha`.

    It is the noncentral t distribution's, as the mean over the deviation that the seeds may show of a normal one's
    (scipy's own gives NaN far from the middle).
    """
    from scipy import integrate, special, stats

    shift = abs(difference) / deviation * math.sqrt(n)
    critical = stats.t.isf(alpha / 2, n - 1)
    shown = stats.chi(n - 1, scale=1 / math.sqrt(n - 1))  # the estimated deviation over the true one

    def found(ratio: float) -> float:
        return shown.pdf(ratio) * (special.ndtr(shift - critical * ratio) + special.ndtr(-shift - critical * ratio))

    low, high = shown.ppf(1e-12), shown.isf(1e-12)
    turn = min(max(shift / critical, low), high)  # where half of the means are found
    parts = [integrate.quad(found, *ends, epsabs=1e-10, limit=200)[0] for ends in ((low, turn), (turn, high))]
    return float(min(1.0, sum(parts)))


def seeds_needed(difference: float, deviation: float, wanted: float, alpha: float) -> int | None:
    """The fewest seeds with which `power` is at least `wanted`; None if that is more than MOST_SEEDS."""
    low, high = 1, 2  # the power grows with n: double, then halve the gap
    while power(high, difference, deviation, alpha) < wanted:
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        if power(middle, difference, deviation, alpha) < wanted:
            low = middle
        else:
            high = middle
    return high


def detectable(n: int, deviation: float, wanted: float, alpha: float) -> float:
    """The smallest true difference that `n` >= 2 seeds find with `power` `wanted`."""
    from scipy import optimize

    most = deviation
    while power(n, most, deviation, alpha) < wanted:
        most *= 2
    return float(optimize.brentq(lambda it: power(n, it, deviation, alpha) - wanted, 0.0, most, xtol=1e-9 * most))


def sign_flip_seeds(alpha: float) -> int:
    """The fewest seeds with which a test that only flips signs can reach p < `alpha` at all."""
    n = 1
    while smallest_sign_flip_p(n) >= alpha:
        n += 1
    return n


@dataclass(frozen=True)
class Need:
    """What the difference between a cell and its reference needs to be found."""

    cell: Cell
    n: int  # seeds that both have
    spread: Spread | None  # of their differences so far; None where they cannot say
    seeds: int | None  # that the spread asks for; None without one, or where it is more than MOST_SEEDS
    seeds_at_worst: int | None  # the same at the upper end of its interval
    detectable: float | None  # the smallest difference that `n` seeds find


def needs(
    cells: Sequence[Cell], against: Sequence[Cell | None], difference: float, wanted: float, alpha: float
) -> list[Need]:
    """For each cell that has a reference: the seeds that show a `difference` in test top-1 (a share, as all here).

    Args:
        cells: those of one table.
        against: for each the cell that it is compared with, as `references` gives them.
        difference: the true one that is to be found.
        wanted: the power, the chance to find it.
        alpha: the level of each test, corrected for their number.
    """
    return [
        _need(cell, reference, difference, wanted, alpha)
        for cell, reference in zip(cells, against, strict=True)
        if reference is not None and reference is not cell
    ]


def _need(cell: Cell, reference: Cell, difference: float, wanted: float, alpha: float) -> Need:
    ours, theirs = cell.by_seed("test/top1"), reference.by_seed("test/top1")
    seen = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    scatter = spread(seen)
    if scatter is None:
        return Need(cell, len(seen), None, None, None, None)
    return Need(
        cell,
        len(seen),
        scatter,
        seeds_needed(difference, scatter.deviation, wanted, alpha),
        seeds_needed(difference, scatter.high, wanted, alpha),
        detectable(len(seen), scatter.deviation, wanted, alpha),
    )
