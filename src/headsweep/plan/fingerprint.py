"""Fingerprint of a run: a hash of everything that its numbers depend on (invariant 2)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from headsweep.config import NOT_IDENTITY, RunConfig


def identity(run: RunConfig) -> dict[str, Any]:
    """Return dotted key -> plain value of every key that a run's numbers depend on."""
    return {key: value for key, value in _flatten(run) if not _excluded(key)}


def place(run: RunConfig) -> dict[str, Any]:
    """Return dotted key -> plain value of the other keys: where a run computes and where its files are."""
    return {key: value for key, value in _flatten(run) if _excluded(key)}


def fingerprint(run: RunConfig) -> str:
    """Return 12 hexadecimal digits over the full resolved configuration, so that a changed default is a new run."""
    return _digest(identity(run))


def group(run: RunConfig) -> str:
    """Return the fingerprint of a cell: the runs that differ in seed alone."""
    return _digest({key: value for key, value in identity(run).items() if key != "seed"})


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _excluded(key: str) -> bool:
    return key in NOT_IDENTITY or key.split(".", 1)[0] in NOT_IDENTITY


def _flatten(section: Any, prefix: str = "") -> list[tuple[str, Any]]:
    pairs = []
    for field in fields(section):
        value, key = getattr(section, field.name), prefix + field.name
        if is_dataclass(value):
            pairs += _flatten(value, f"{key}.")
        elif isinstance(value, dict):  # one value, however many keywords it holds
            pairs.append((key, json.dumps(value, sort_keys=True)))
        else:
            pairs.append((key, value.value if isinstance(value, Enum) else value))
    return pairs
