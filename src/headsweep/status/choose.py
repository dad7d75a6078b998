"""Runs by their values, as on a command line: `head=ga heads=8`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headsweep.errors import UserError
from headsweep.selection import is_condition
from headsweep.tracking.run_folder import RunFolder


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names and the conditions KEY=VALUE among the words of a command."""
    return [word for word in words if not is_condition(word)], list(filter(is_condition, words))


def chosen(folders: Sequence[RunFolder], conditions: Sequence[str]) -> list[RunFolder]:
    """Return the runs that meet all conditions; a group such as `head` stands for its name.

    Raises:
        UserError: a condition is not KEY=VALUE, or no run meets them.
        Damaged: the record of a run cannot be read.
    """
    if not conditions:
        return list(folders)
    from headsweep.config.values import canonical, matches, read_words  # imports Hydra

    values = read_words(conditions)
    found = {folder: _values(folder, values) for folder in folders}
    meeting = [it for it, own in found.items() if all(matches(values[key], own[key]) for key in values)]
    if not meeting:
        known = {key: dict.fromkeys(canonical(own[key]) for own in found.values()) for key in values}
        shown = "; ".join(f"{key} is {', '.join(known[key])}" for key in values)
        raise UserError(f"{' '.join(conditions)}: no such run among {len(folders)}; {shown}")
    return meeting


def _values(folder: RunFolder, keys: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of a run's keys. Raises UserError for a key that it does not have."""
    from headsweep.config.values import ABSENT, value_at

    config = folder.record().config
    found = {key: value_at(config, key) for key in keys}
    for key, value in found.items():
        if value is ABSENT:
            from headsweep.config.omegaconf_errors import unknown_key

            raise unknown_key(key)
    return found
