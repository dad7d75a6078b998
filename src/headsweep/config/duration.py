"""Durations: a number and a unit, resolved to steps once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from headsweep.errors import ConfigError

MOST = 1e12  # of any unit: no run gets that far, and more steps would overflow


class DurationUnit(Enum):
    epochs = "epochs"
    steps = "steps"
    images = "images"
    percent = "percent"


@dataclass(frozen=True)
class Duration:
    """A number and a unit, as in "300 epochs", "5000 steps", "1e6 images" or, of the whole run, "5 percent"."""

    value: float
    unit: DurationUnit

    @staticmethod
    def parse(key: str, text: str) -> Duration:
        """Parse `text`, the value of `key`. Raises ConfigError if it is no duration."""
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]*)?(?:e[0-9]+)?)\s*(?:(epoch|step|image)s?|percent)\s*", text)
        if match is None:
            raise ConfigError(key, text, "expected a number and a unit, e.g. '10 epochs', '500 steps', '1e6 images'")
        if not float(match[1]) <= MOST:
            raise ConfigError(key, text, f"expected <= {MOST:g}")
        return Duration(float(match[1]), DurationUnit(f"{match[2]}s" if match[2] else "percent"))

    def steps(self, steps_per_epoch: int, batch_size: int, whole: int = 0) -> int:
        """Return the duration in optimizer steps; a percentage is of `whole` steps."""
        per_unit = {
            DurationUnit.epochs: float(steps_per_epoch),
            DurationUnit.steps: 1.0,
            DurationUnit.images: 1.0 / batch_size,
            DurationUnit.percent: whole / 100,
        }
        return round(self.value * per_unit[self.unit])
