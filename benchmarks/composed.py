"""Configurations for the benchmarks, as `python src/train.py` composes them."""

from __future__ import annotations

from collections.abc import Sequence

from headsweep.config import RunConfig, parse
from headsweep.config.expansion import composer


def compose(words: Sequence[str]) -> RunConfig:
    """The configuration of these overrides; no data set is looked at."""
    with composer() as composed:
        return parse(composed(list(words)))
