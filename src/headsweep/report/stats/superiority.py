"""P(A > B): the probability that a run of A is more accurate than a run of B with the same seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from headsweep.report.stats.inference import CONFIDENCE, EQUAL


@dataclass(frozen=True)
class Superiority:
    """A probability with the limits of its 95 % interval, from `n` pairs."""

    probability: float
    low: float
    high: float
    n: int


def superiority(values: Mapping[int, float], baseline: Mapping[int, float]) -> Superiority | None:
    """Return the probability that `values` exceed `baseline` for the same seed; None where they share none.

    Both map seed to value. The estimate is that of Bouthillier et al. (2021), arXiv 2103.03098: the share of pairs in
    which A is better, where a tie counts half. Pairs share the seed, as the runs of a study do.

    The interval is not their percentile bootstrap, which for five wins of five is [1, 1], but Clopper and Pearson's
    exact one (1934): the lower limit counts every tie as a loss, the upper one as a win. If each tie were decided by a
    coin, the number of wins would be binomial with this very probability and lie between those two counts, so the
    interval covers at least 95 %.
    """
    differences = [values[seed] - baseline[seed] for seed in values if seed in baseline]
    n = len(differences)
    if not n:
        return None
    wins = sum(difference > EQUAL for difference in differences)
    losses = sum(difference < -EQUAL for difference in differences)
    return Superiority((n + wins - losses) / (2 * n), _limit(wins, n), 1 - _limit(losses, n), n)


@lru_cache(maxsize=1024)
def _limit(wins: int, n: int) -> float:
    """Return the lower limit for a probability; the upper one is 1 minus that for the losses."""
    from scipy import stats

    return float(stats.beta.ppf((1 - CONFIDENCE) / 2, wins, n - wins + 1)) if wins else 0.0
