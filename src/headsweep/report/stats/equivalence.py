"""Two one-sided paired t-tests over seeds: is a difference within a margin, or at least not below it?"""

from __future__ import annotations

from dataclasses import dataclass

from headsweep.report.stats.inference import Difference, t_quantile


@dataclass(frozen=True)
class OneSided:
    """One-sided p of a paired difference against a margin, without correction."""

    above: float  # that the difference is not above -margin: small if it is not worse
    below: float  # that it is not below +margin

    @property
    def equivalent(self) -> float:
        """The p of the TOST procedure: the larger of the two."""
        return max(self.above, self.below)


def against_margin(difference: Difference, margin: float) -> OneSided | None:
    """Test a paired difference against `margin` > 0, in its unit; None where it has no spread (one seed, equal values).

    Schuirmann (1987), Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680: the difference is equivalent at the
    level of the tests if both reject. That needs no correction for two tests. The one on `above` alone is the test of
    non-inferiority.
    """
    if difference.half_width is None:
        return None
    from scipy import special

    degrees = difference.n - 1
    error = difference.half_width / t_quantile(degrees)
    above = special.stdtr(degrees, -(difference.mean + margin) / error)
    below = special.stdtr(degrees, (difference.mean - margin) / error)
    return OneSided(float(above), float(below))
