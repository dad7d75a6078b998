"""The name of a run, from all that its numbers depend on (law 2)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from enum import Enum
from typing import Any

from headsweep.config import NOT_IDENTITY, RunConfig


def identity(run: RunConfig) -> dict[str, Any]:
    """Dotted key -> plain value, of every key that a run's numbers depend on."""
    return {key: value for key, value in _flatten(asdict(run)) if not _excluded(key)}


def fingerprint(run: RunConfig) -> str:
    """12 hexadecimal digits over the full resolved configuration, so that a changed default is a new run."""
    return _digest(identity(run))


def group(run: RunConfig) -> str:
    """The fingerprint of the runs that differ in seed alone."""
    return _digest({key: value for key, value in identity(run).items() if key != "seed"})


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _excluded(key: str) -> bool:
    return key in NOT_IDENTITY or key.split(".", 1)[0] in NOT_IDENTITY


def _flatten(content: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for key, value in content.items():
        if isinstance(value, dict):
            pairs += _flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((prefix + key, value.value if isinstance(value, Enum) else value))
    return pairs
