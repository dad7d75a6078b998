"""How the cells of a study relate to each other, beyond the values of their axes; stored with the plan of its sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from headsweep.tracking.typed_files import require


@dataclass(frozen=True)
class Margin:
    """The difference below which two cells count as equivalent."""

    points: float  # of the compared accuracy, in percentage points
    finished: int = 0  # runs of the sweep that had finished when it was declared; 0: declared in advance

    def check(self) -> None:
        """Raise ValueError for a margin that is not positive."""
        is_right = math.isfinite(self.points) and 0 < self.points < 100
        require("margin.points", self.points, is_right, "percentage points in (0, 100)")
        require("margin.finished", self.finished, self.finished >= 0, "an integer >= 0")


@dataclass(frozen=True)
class Design:
    """What a study declares besides its axes; a cell is named by its group."""

    variants: dict[str, str] = field(default_factory=dict)  # cell -> name of its variant
    variant_keys: list[str] = field(default_factory=list)  # dotted keys that the variants set
    baseline: str | None = None  # name of the variant that the others are compared with
    tune: list[str] = field(default_factory=list)  # dotted keys chosen for each arm on validation images
    margin: Margin | None = None

    def check(self) -> None:
        """Raise ValueError for a baseline that no cell has, or a margin out of range."""
        known = ", ".join(dict.fromkeys(self.variants.values()))
        if self.baseline is not None:
            require("design.baseline", self.baseline, self.baseline in self.variants.values(), f"one of {known}")
        if self.margin is not None:
            self.margin.check()
