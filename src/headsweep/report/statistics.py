"""What may be said of numbers that differ by seed: t-intervals, paired differences, a correction for their number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
_EQUAL = 1e-12  # values this close are equal: accuracies are counts over thousands of images


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds and the half-width of its 95 % t-interval; None where the seeds show no spread."""

    mean: float
    half_width: float | None
    n: int


@dataclass(frozen=True)
class Difference(Estimate):
    """A mean difference over `n` common seeds, and the two-sided p of the paired t-test."""

    p: float | None


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of `values` and its interval, which one value or equal values do not have.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    mean, error = _mean_and_error(values)
    return Estimate(mean, None if error is None else error * _t_quantile(len(values) - 1), len(values))


def paired_difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """`values` minus `reference` over the seeds that both have; None where they have none in common.

    Both map seed to value. Equal differences have neither interval nor p: a test would call two of them certain.
    """
    differences = [values[seed] - reference[seed] for seed in values if seed in reference]
    if not differences:
        return None
    spread = estimate(differences)
    mean, error = _mean_and_error(differences)
    p = None if error is None else _two_sided_p(mean / error, len(differences) - 1)
    return Difference(spread.mean, spread.half_width, spread.n, p)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Correct the p of one family of tests for their number (Holm 1979); None is no test and stays None."""
    from statsmodels.stats.multitest import multipletests

    tests = [index for index, p in enumerate(ps) if p is not None]
    corrected: list[float | None] = [None] * len(ps)
    if tests:
        for index, p in zip(tests, multipletests([ps[i] for i in tests], method="holm")[1], strict=True):
            corrected[index] = float(p)
    return corrected


def smallest_sign_flip_p(n: int) -> float:
    """The least two-sided p that a test which only flips signs can reach with `n` pairs: 2 of 2^n patterns."""
    return min(1.0, 2.0 ** (1 - n))


def _mean_and_error(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean and its standard error; None where the values cannot show one."""
    n = len(values)
    mean = math.fsum(values) / n
    if max(values) - min(values) <= _EQUAL:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


def _t_quantile(degrees: int) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + CONFIDENCE) / 2, degrees))


def _two_sided_p(t: float, degrees: int) -> float:
    from scipy import stats

    return float(2 * stats.t.sf(abs(t), degrees))
