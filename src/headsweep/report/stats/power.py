"""Power of paired t-tests over seeds: seeds needed for a difference or a margin, and the minimum detectable effect.

Differences are those of two cells with the same seed. Corrections for multiple comparisons are Bonferroni's, which is
at least as strict as Holm's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headsweep.report.stats.inference import CONFIDENCE, smallest_sign_flip_p

MOST_SEEDS = 9_999  # largest N of `seeds=N`
Power = Callable[[int, float, float, float], float]  # of seeds, difference or margin, deviation and level


@dataclass(frozen=True)
class Spread:
    """The standard deviation of `n` paired differences and its 95 % confidence interval, assuming normality."""

    deviation: float
    n: int
    low: float
    high: float


def spread(differences: Sequence[float]) -> Spread | None:
    """Return the spread of paired differences; None for fewer than two differences, or equal ones.

    The interval is from the chi-square distribution: with n = 3 its upper limit is 6.3 times the estimate.
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
    """Return the power of a two-sided paired t-test over `n` >= 2 seeds to detect a true `difference` at level `alpha`.

    This is the noncentral t distribution, integrated over the estimated deviation (scipy's own gives NaN in the tails).
    """
    from scipy import special

    shift = abs(difference) / deviation * math.sqrt(n)
    return _integral(
        n, shift, alpha / 2, lambda critical: special.ndtr(shift - critical) + special.ndtr(-shift - critical)
    )


def not_worse_power(n: int, margin: float, deviation: float, alpha: float) -> float:
    """Return the power of the one-sided test to show that a true difference of 0 is above -`margin`."""
    from scipy import special

    shift = margin / deviation * math.sqrt(n)
    return _integral(n, shift, alpha, lambda critical: special.ndtr(shift - critical))


def equivalence_power(n: int, margin: float, deviation: float, alpha: float) -> float:
    """Return the power of two one-sided tests (TOST) to show that a true difference of 0 is within `margin`.

    Both reject if the mean is within the margin minus the critical value times the estimated standard error: exact, as
    in Phillips (1990), Journal of Pharmacokinetics and Biopharmaceutics 18, 137-144.
    """
    from scipy import special

    shift = margin / deviation * math.sqrt(n)
    return _integral(n, shift, alpha, lambda critical: max(0.0, 2 * special.ndtr(shift - critical) - 1))


def _integral(n: int, shift: float, tail: float, power_given: Callable[[float], float]) -> float:
    """Integrate a power over the estimated deviation.

    Args:
        n: number of seeds.
        shift: the difference or margin, in true standard errors.
        tail: level of one tail.
        power_given: the power for a critical value in true standard errors.
    """
    from scipy import integrate, special

    # The estimated deviation over the true one has a scaled chi distribution. By formula: scipy.stats takes 0.1 ms a
    # value, and an answer takes thousands.
    half = (n - 1) / 2
    critical = -special.stdtrit(n - 1, tail)
    constant = math.log(2) + half * math.log(half) - math.lgamma(half)

    def density(ratio: float) -> float:
        log_density = constant + (n - 2) * math.log(ratio) - half * ratio**2
        return math.exp(log_density) * float(power_given(critical * ratio))

    low, high = (math.sqrt(inverse(half, 1e-12) / half) for inverse in (special.gammaincinv, special.gammainccinv))
    turn = min(max(shift / critical, low), high)  # where the power given the ratio changes fastest
    parts = [integrate.quad(density, *ends, epsabs=1e-10, limit=200)[0] for ends in ((low, turn), (turn, high))]
    return float(min(1.0, sum(parts)))


def seeds_needed(
    difference: float, deviation: float, target: float, alpha: float, power_of: Power = power
) -> int | None:
    """Return the fewest seeds with a power of at least `target`; None if that is more than MOST_SEEDS."""
    low, high = 1, 2  # the power grows with n: double, then halve the gap
    while power_of(high, difference, deviation, alpha) < target:
        if high == MOST_SEEDS:
            return None
        low, high = high, min(2 * high, MOST_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        if power_of(middle, difference, deviation, alpha) < target:
            low = middle
        else:
            high = middle
    return high


def detectable(n: int, deviation: float, target: float, alpha: float, power_of: Power = power) -> float:
    """Return the minimum detectable effect, or the smallest margin: what `n` >= 2 seeds show with power `target`."""
    from scipy import optimize

    most = deviation
    while power_of(n, most, deviation, alpha) < target:
        most *= 2
    return float(optimize.brentq(lambda it: power_of(n, it, deviation, alpha) - target, 0.0, most, xtol=1e-9 * most))


def sign_flip_seeds(alpha: float) -> int:
    """Return the fewest seeds with which a sign-flip test can reach p < `alpha`."""
    n = 1
    while smallest_sign_flip_p(n) >= alpha:
        n += 1
    return n


@dataclass(frozen=True)
class Requirement:
    """What the paired differences of two cells show about the seeds that their comparison needs."""

    n: int  # seeds that both have
    spread: Spread | None  # None where it cannot be estimated, as then all below
    seeds: int | None  # for the estimated spread; None where it is more than MOST_SEEDS
    seeds_upper: int | None  # likewise for the upper confidence limit of the spread
    detectable: float | None  # minimum detectable effect, or smallest margin, with `n` seeds


def requirement(
    differences: Sequence[float], effect: float, target: float, alpha: float, power_of: Power = power
) -> Requirement:
    """Return the seeds that detect a true difference of `effect` with power `target` at level `alpha`.

    With `power_of` for a margin, `effect` is that margin.
    """
    n, found = len(differences), spread(differences)
    if found is None:
        return Requirement(n, None, None, None, None)
    return Requirement(
        n,
        found,
        seeds_needed(effect, found.deviation, target, alpha, power_of),
        seeds_needed(effect, found.high, target, alpha, power_of),
        detectable(n, found.deviation, target, alpha, power_of),
    )
