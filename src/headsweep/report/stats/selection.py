"""Choose one of several settings by a mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from headsweep.report.stats.inference import EQUAL

LEAST_VALUES = 3  # of a range that has an inside


@dataclass(frozen=True)
class Choice:
    """The chosen one of several settings."""

    at: int  # its index
    tied: int = 1  # settings with the same mean, itself included; all of them where none has a mean


def choose(values: Sequence[Mapping[int, float] | None]) -> Choice:
    """Choose the setting with the highest mean over seeds, the first of equal ones.

    Args:
        values: for each setting seed -> value; None or empty for a setting that counts as worst.

    Raises:
        ValueError: there is no setting.
    """
    if not values:
        raise ValueError("a choice needs at least one setting")
    means = [fmean(by_seed.values()) if by_seed else -math.inf for by_seed in values]
    best = max(means)
    tied = [at for at, mean in enumerate(means) if mean == best or best - mean <= EQUAL]
    return Choice(tied[0], len(tied))


def edge(chosen: float, values: Sequence[float]) -> str:
    """Return "lower" or "upper" where the chosen value is at that edge of its range, else "".

    With fewer than LEAST_VALUES different values every choice, or nearly every one, is at an edge, which shows nothing.
    """
    if len(set(values)) < LEAST_VALUES:
        return ""
    return {min(values): "lower", max(values): "upper"}.get(chosen, "")
