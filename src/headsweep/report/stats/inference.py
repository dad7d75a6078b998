"""Statistics over seeds: t-intervals, paired differences, sign-flip and McNemar's tests, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

CONFIDENCE = 0.95
LEVEL = 0.05  # of significance, for corrected p
LEAST_SEEDS = 3  # for a claim: with two, no test without a normal distribution reaches p < 0.5
EQUAL = 1e-12  # values this close are equal: accuracies are counts over thousands of images
_MOST_EXACT = 16  # pairs up to which every pattern of signs is enumerated
_FLIPS = 1 << 16  # patterns that are sampled for more pairs


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds and the half-width of its 95 % t-interval; None without spread."""

    mean: float
    half_width: float | None
    n: int


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean difference over `n` common seeds, and its two-sided p without correction."""

    p: float | None  # of the paired t-test
    sign_flip_p: float | None  # of the sign-flip permutation test, which does not assume a normal distribution
    by_seed: Mapping[int, float] = field(default_factory=dict)  # the difference of each common seed


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of `values` and its interval, which one value or equal values do not have.

    Raises:
        ValueError: `values` is empty.
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    mean, error = _mean_and_error(values)
    return Estimate(mean, None if error is None else error * t_quantile(len(values) - 1), len(values))


def paired_difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Return `values` minus `baseline` over the seeds that both have; None where they share none.

    Both map seed to value. Equal differences have neither interval nor p: their estimated variance, and so p, is 0.
    """
    by_seed = {seed: values[seed] - baseline[seed] for seed in values if seed in baseline}
    if not by_seed:
        return None
    differences = list(by_seed.values())
    spread = estimate(differences)
    mean, error = _mean_and_error(differences)
    if error is None:
        return Difference(spread.mean, spread.half_width, spread.n, None, None, by_seed)
    p = _two_sided_p(mean / error, len(differences) - 1)
    return Difference(spread.mean, spread.half_width, spread.n, p, sign_flip_p(differences), by_seed)


def holm(ps: Sequence[float | None], family: int = 0) -> list[float | None]:
    """Correct p-values for multiple comparisons (Holm 1979); None is no test and stays None.

    Args:
        ps: uncorrected.
        family: number of planned tests, if more than there are: a comparison whose runs are missing still counts.
    """
    # statsmodels has this, too, but takes a second to import and 50 ms a call (it runs the garbage collector).
    tests = [p for p in ps if p is not None]
    size = max(family, len(tests))
    corrected: dict[float, float] = {}
    least = 0.0
    for rank, p in enumerate(sorted(tests)):
        least = max(least, min(1.0, (size - rank) * p))
        corrected.setdefault(p, least)
    return [None if p is None else corrected[p] for p in ps]


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the two-sided p of the sign-flip permutation test that the mean of paired differences is zero.

    It is exact up to 16 pairs; beyond, 65,536 patterns are sampled, the same ones each time.
    """
    import numpy as np

    values = np.asarray(differences, dtype=np.float64)
    flipped = np.abs(_signs(len(values)) @ values)
    observed = abs(float(values.sum()))
    return float(np.mean(flipped >= observed - EQUAL))


def mcnemar_p(correct: ArrayLike, baseline: ArrayLike) -> float:
    """Return the exact two-sided p of McNemar's test that two classifiers are equally accurate.

    It holds for these two sets of weights, not for the methods that trained them (Dietterich 1998).

    Args:
        correct, baseline: for each test image, in the same order, whether the prediction is correct.

    Raises:
        ValueError: the numbers of images differ.
    """
    import numpy as np
    from scipy import stats

    first, second = np.asarray(correct, dtype=bool), np.asarray(baseline, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"expected the same test images, found {first.size} and {second.size} images")
    won, lost = int((first & ~second).sum()), int((second & ~first).sum())
    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def smallest_sign_flip_p(n: int) -> float:
    """Return the smallest p that a two-sided sign-flip test can reach with `n` pairs: 2 of 2^n patterns."""
    return min(1.0, 2.0 ** (1 - n))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error; None where the values have no spread."""
    n = len(values)
    mean = math.fsum(values) / n
    if max(values) - min(values) <= EQUAL:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


@lru_cache(maxsize=32)
def _signs(n: int) -> Any:
    """Return patterns of n signs, (patterns, n): all with the same first sign, or the observed and sampled ones."""
    import numpy as np

    if n <= _MOST_EXACT:
        patterns = np.arange(1 << (n - 1))[:, None] >> np.arange(n)[::-1] & 1
    else:
        patterns = np.random.default_rng(0).integers(0, 2, (_FLIPS, n))
        patterns[0] = 0
    return 1.0 - 2.0 * patterns


@lru_cache
def t_quantile(degrees: int) -> float:
    """Return the quantile of Student's t that a 95 % interval extends to, in standard errors."""
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))


def _two_sided_p(t: float, degrees: int) -> float:
    from scipy import stats

    return float(2 * stats.t.sf(abs(t), degrees))
