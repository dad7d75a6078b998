"""Checks across the cells of one command: cells that are the same run, keys that all cells must share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser

from headsweep.config import RunConfig
from headsweep.config.keys import has_trait
from headsweep.config.traits import SHARED
from headsweep.errors import ConfigError
from headsweep.plan.fingerprint import fingerprint, place


def check_shared(runs: Sequence[RunConfig]) -> None:
    """Raise ConfigError if cells differ in a key that applies to the whole command."""
    places = [place(run) for run in runs]
    for key in places[0] if places else ():
        found = list(dict.fromkeys(str(where[key]) for where in places))
        if has_trait(key, SHARED) and len(found) > 1:
            expected = "expected one value for all cells of a grid; give one, or quote a value that has a comma"
            raise ConfigError(key, ",".join(found), f"{expected}, as in '{key}=\"a,b\"'")


def check_distinct(runs: Sequence[RunConfig]) -> None:
    """Raise ConfigError if cells differ only in keys that change no result, and so are the same run."""
    seen: dict[str, RunConfig] = {}
    for run in runs:
        first = seen.setdefault(fingerprint(run), run)
        before, now = place(first), place(run)
        for key in before:
            if before[key] != now[key]:
                expected = "expected one value: this key changes no result, so these cells are the same run; give one"
                raise ConfigError(key, f"{before[key]},{now[key]}", expected)


def repetitions(cells: Sequence[Sequence[str]], runs: Sequence[object], axes: Sequence[str]) -> str | None:
    """Return one line on cells that repeat the configuration of an earlier one, and why; None if there is none.

    Args:
        cells: the overrides of each cell.
        runs: the `RunConfig` of each cell; anything else is skipped.
        axes: the overrides that give the values of each axis.
    """
    first: dict[str, Sequence[str]] = {}
    again: list[tuple[Sequence[str], Sequence[str]]] = []
    for words, run in zip(cells, runs, strict=True):
        if isinstance(run, RunConfig):
            earlier = first.setdefault(repr(run), words)
            again += [(earlier, words)] * (earlier is not words)
    if not again:
        return None
    differing = [f"{one} and {other} are equal" for one, other in zip(*again[0], strict=True) if one != other]
    why = ", ".join(differing or _twice(axes))
    return f"{len(again)} of {len(cells)} cells repeat earlier cells: {why}"


def _twice(axes: Sequence[str]) -> list[str]:
    overrides = OverridesParser.create().parse_overrides(list(axes))
    given = {it.key_or_group: Counter(it.sweep_string_iterator()) for it in overrides if it.is_discrete_sweep()}
    return [
        f"{key}={value} is given {n} times" for key, values in given.items() for value, n in values.items() if n > 1
    ]
