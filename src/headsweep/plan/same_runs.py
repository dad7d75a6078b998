"""Cells of one command that are one run, and keys that all its cells must share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser

from headsweep.config import RunConfig
from headsweep.errors import ConfigError
from headsweep.plan.fingerprint import fingerprint, place

_SHARED = ("paths.output", "tracking.")  # one for a command: its sweep has one folder, and one tracker


def check_shared(runs: Sequence[RunConfig]) -> None:
    """Raise ConfigError if cells of one command differ in a key that holds for the whole command."""
    places = [place(run) for run in runs]
    for key in places[0] if places else ():
        found = list(dict.fromkeys(str(where[key]) for where in places))
        if key.startswith(_SHARED) and len(found) > 1:
            want = "expected one value for all cells of a grid; give one, or quote a text that has a comma"
            raise ConfigError(key, ",".join(found), f"{want}, as in '{key}=\"a,b\"'")


def check_distinct(runs: Sequence[RunConfig]) -> None:
    """Raise ConfigError if cells are one run because they differ only in keys that change no result."""
    seen: dict[str, RunConfig] = {}
    for run in runs:
        first = seen.setdefault(fingerprint(run), run)
        before, now = place(first), place(run)
        for key in before:
            if before[key] != now[key]:
                want = "changes no result, so that cells that differ in it alone are one run; give one value"
                raise ConfigError(key, f"{before[key]},{now[key]}", want)


def repetitions(cells: Sequence[Sequence[str]], runs: Sequence[object], axes: Sequence[str]) -> str | None:
    """Say how many cells have the configuration of an earlier one, and why; None if none has.

    Args:
        cells: the overrides of each.
        runs: of each its `RunConfig`, or what else became of it.
        axes: overrides that say what was given for each axis.
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
    return f"{len(again)} of {len(cells)} cells are runs of earlier cells: {why}"


def _twice(axes: Sequence[str]) -> list[str]:
    overrides = OverridesParser.create().parse_overrides(list(axes))
    given = {it.key_or_group: Counter(it.sweep_string_iterator()) for it in overrides if it.is_discrete_sweep()}
    return [
        f"{key}={value} is given {n} times" for key, values in given.items() for value, n in values.items() if n > 1
    ]
