"""Checks across the cells of one command: cells that are the same run, keys that all cells must share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

from headsweep.config import RunConfig
from headsweep.config.keys import has_trait
from headsweep.config.study.points import Point
from headsweep.config.study_keys import VARIANTS
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


def collapses(runs: Sequence[RunConfig]) -> tuple[str, ...]:
    """Return a line on each key in which cells differ that are the same run, as it changes no result."""
    found: dict[str, dict[str, None]] = {}  # key -> its values, in the order of the cells
    cells: dict[str, set[str]] = {}  # key -> fingerprints
    counts: Counter[str] = Counter()
    seen: dict[str, dict[str, Any]] = {}
    for run in runs:
        name, now = fingerprint(run), place(run)
        counts[name] += 1
        before = seen.setdefault(name, now)
        for key in (key for key in before if before[key] != now[key]):
            found.setdefault(key, {}).update({_word(before[key]): None, _word(now[key]): None})
            cells.setdefault(key, set()).add(name)
    lines = []
    for key, values in found.items():
        number = sum(counts[name] for name in cells[key])
        once = "1 run, trained" if len(cells[key]) == 1 else f"{len(cells[key])} runs, each trained"
        lines.append(f"{key}={','.join(values)}: changes no result; {number} cells are {once} as its first cell")
    return tuple(lines)


def _word(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def repetitions(points: Sequence[Point], runs: Sequence[object], axes: Sequence[str]) -> list[str]:
    """Return lines on cells that repeat the configuration of an earlier one, and why.

    Args:
        points: the cells.
        runs: the `RunConfig` of each cell; anything else is skipped.
        axes: the overrides that give the values of each axis.

    Raises:
        ConfigError: two variants have the same configuration.
    """
    first: dict[str, Point] = {}
    again: list[tuple[Point, Point]] = []
    for point, run in zip(points, runs, strict=True):
        if isinstance(run, RunConfig):
            earlier = first.setdefault(repr(run), point)
            again += [(earlier, point)] * (earlier is not point)
    for one, other in again:
        if one.variant != other.variant and one.variant and other.variant:
            where = " ".join(word for word in other.axes if any(word not in point.axes for point in points))
            found = f"found that {one.variant} and {other.variant} are the same run" + f" at {where}" * bool(where)
            advice = "leave one out" + ", or that cell" * bool(where)
            raise ConfigError(VARIANTS, None, f"expected variants that differ, {found}; {advice}")
    blocks = sum(one.block != other.block for one, other in again)
    lines = [f"{blocks} of {len(points)} cells are in an earlier block of the union, too"] * bool(blocks)
    if within := [pair for pair in again if pair[0].block == pair[1].block]:
        why = ", ".join(_differing(*within[0]) or _twice(axes))
        lines.append(f"{len(within)} of {len(points)} cells repeat earlier cells: {why}")
    return lines


def _differing(one: Point, other: Point) -> list[str]:
    words, others = (
        [word for word in point.overrides if word not in than.overrides] for point, than in ((one, other), (other, one))
    )
    if len(words) == len(others):
        return [f"{word} and {by} are equal" for word, by in zip(words, others, strict=True)]
    return [f"{' '.join(words) or 'nothing'} and {' '.join(others) or 'nothing'} are equal"]


def _twice(axes: Sequence[str]) -> list[str]:
    overrides = OverridesParser.create().parse_overrides(list(axes))
    given = {it.key_or_group: Counter(it.sweep_string_iterator()) for it in overrides if it.is_discrete_sweep()}
    return [
        f"{key}={value} is given {n} times" for key, values in given.items() for value, n in values.items() if n > 1
    ]
