"""Fingerprint of a run: a hash of everything that its numbers depend on (invariant 2)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from headsweep.config import RunConfig
from headsweep.config.keys import flat, has_trait, without_neutral
from headsweep.config.traits import RESULT


def identity(run: RunConfig) -> dict[str, Any]:
    """Return dotted key -> plain value of every key that a run's numbers depend on."""
    return {key: value for key, value in flat(run).items() if has_trait(key, RESULT)}


def place(run: RunConfig) -> dict[str, Any]:
    """Return dotted key -> plain value of the other keys: where a run computes and where its files are."""
    return {key: value for key, value in flat(run).items() if not has_trait(key, RESULT)}


def fingerprint(run: RunConfig) -> str:
    """Return 12 hexadecimal digits over the full resolved configuration, so that a changed default is a new run."""
    return _digest(identity(run))


def group(run: RunConfig) -> str:
    """Return the fingerprint of a cell: the runs that differ in seed alone."""
    return _digest({key: value for key, value in identity(run).items() if key != "seed"})


def differing(identities: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which identities differ; a key that only some of them have does not differ for that alone."""
    keys = dict.fromkeys(key for identity in identities for key in identity)
    return [key for key in keys if len({str(it[key]) for it in identities if key in it}) > 1]


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(without_neutral(content), sort_keys=True).encode()).hexdigest()[:12]
