"""The keys of the study language, below `hydra.sweeper`."""

from __future__ import annotations

SWEEPER = "hydra.sweeper"
CONDITIONAL = f"{SWEEPER}.conditional"
VARIANTS = f"{SWEEPER}.variants"
KEYS_OF_BLOCKS = ("params", "variants", "conditional", "zipped")
KEYS = (*KEYS_OF_BLOCKS, "tune", "baseline", "margin", "union")
