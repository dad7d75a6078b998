"""Resources of single cells: the texts of `hydra.launcher.needs`, e.g. `head=ga: memory=32GB`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headsweep.config.values import ABSENT, Condition, read_conditions, read_words, value_at

RESOURCES = ("cpus", "gpus", "memory", "time")  # keys of the launcher `slurm` that a need can set
FORM = "expected CONDITIONS: RESOURCES, e.g. 'head=ga heads>4: memory=32GB time=480'"
_SEPARATOR = re.compile(r"\s*:\s+")  # a colon within a value, as in head=./my_head.py:MyHead, has no space behind it


@dataclass(frozen=True)
class Need:
    """What the runs ask for that meet some conditions."""

    text: str
    conditions: tuple[Condition, ...]
    resources: Mapping[str, int | str]

    def applies(self, config: Mapping[str, Any]) -> bool:
        """Return whether a run's configuration meets all conditions; one that lacks a key does not.

        Raises:
            ValueError: a condition orders text.
        """
        for condition in self.conditions:  # one after the other: later ones may be about keys of a single head
            value = value_at(config, condition.key)
            if value is ABSENT or not condition.holds(value):
                return False
        return True

    def unknown(self, config: Mapping[str, Any]) -> set[str]:
        """Return the keys of the conditions that a run's configuration lacks."""
        return {it.key for it in self.conditions if value_at(config, it.key) is ABSENT}


def read_need(text: str) -> Need:
    """Read a text such as `head=ga heads>4: memory=32GB time=480`.

    Raises:
        ValueError: it has another form, or sets a key that is no resource.
    """
    conditions, *rest = _SEPARATOR.split(text.strip())
    words = [word for word in re.split(r"[,\s]+", rest[0]) if word] if len(rest) == 1 else []
    if not conditions or not words or not all(re.fullmatch(r"\w+=[^=]+", word) for word in words):
        raise ValueError(FORM)
    given = read_words(words)
    if unknown := sorted(given.keys() - set(RESOURCES)):
        raise ValueError(f"{unknown[0]}={given[unknown[0]]}: unknown resource; known: {', '.join(RESOURCES)}")
    return Need(text, tuple(read_conditions(conditions)), {key: _typed(key, value) for key, value in given.items()})


def _typed(key: str, value: str) -> int | str:
    if key == "memory":
        return value
    if not value.isdecimal():
        raise ValueError(f"{key}={value}: expected an integer")
    return int(value)
