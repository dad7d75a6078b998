"""Two one-sided paired t-tests over seeds: is a difference within a margin, or at least not below it?"""

from __future__ import annotations

from dataclasses import dataclass

from headsweep.report.stats.inference import Difference, t_quantile


@dataclass(frozen=True)
class OneSided:
    """One-sided p of a paired difference against a margin, without correction."""

    not_worse: float  # that the difference is worse by the margin or more: small if it is not
    not_better: float  # that it is better by the margin or more

    @property
    def equivalent(self) -> float:
        """The p of the TOST procedure: the larger of the two."""
        return max(self.not_worse, self.not_better)


def against_margin(difference: Difference, margin: float, sign: int = 1) -> OneSided | None:
    """Test a paired difference against `margin` > 0, in its unit; None where it has no spread (one seed, equal values).

    With `sign` -1 lower values are better.

    Schuirmann (1987), Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680: the difference is equivalent at the
    level of the tests if both reject. That needs no correction for two tests. The one on `not_worse` alone is the test
    of non-inferiority.
    """
    if difference.half_width is None:
        return None
    from scipy import special

    degrees = difference.n - 1
    error = difference.half_width / t_quantile(degrees)
    gain = sign * difference.mean
    not_worse = special.stdtr(degrees, -(gain + margin) / error)
    not_better = special.stdtr(degrees, (gain - margin) / error)
    return OneSided(float(not_worse), float(not_better))
