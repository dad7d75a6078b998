"""Conditional axes: what some cells of a grid have beside its product, chosen by their composed configurations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from headsweep.config.study.axes import key_of
from headsweep.config.study.exclusions import all_hold
from headsweep.config.study.grid import Cell
from headsweep.config.study.points import Condition, Point, Points, Words, check_number
from headsweep.config.study_keys import CONDITIONAL
from headsweep.errors import ConfigError

Composed = Callable[[Words], Cell | Exception]  # of the overrides of a point


def with_conditions(given: Points, compose: Composed) -> list[Point]:
    """Return the points of a grid, each as often as its conditional axes have values.

    Conditions are checked in the order of the study, so that a later one may name an axis that an earlier one adds.

    Raises:
        ConfigError: a condition cannot be read, or holds in no cell; or two give a point the same axis.
        UserError: there are too many points.
    """
    found = list(given.points)
    for text in dict.fromkeys(condition.text for block in given.conditions for condition in block):
        by_block = [[it for it in block if it.text == text] for block in given.conditions]
        found = _with_condition(text, found, by_block, compose, given.study.axes())
    return sorted(found, key=lambda point: (point.block, point.place))


def _with_condition(
    text: str,
    points: Sequence[Point],
    by_block: Sequence[Sequence[Condition]],
    compose: Composed,
    axes: Sequence[str],
) -> list[Point]:
    """Add the axes of one condition to the points in which it holds; `by_block` has it for each block that it is in."""
    in_scope = [at for at, point in enumerate(points) if by_block[point.block]]
    composed = [(at, cell) for at in in_scope if isinstance(cell := compose(points[at].overrides), Cell)]
    holds = all_hold(text, [cell for _, cell in composed], axes, CONDITIONAL) if composed else []
    chosen = {at for (at, _), answer in zip(composed, holds, strict=True) if answer}
    is_narrowed = any(condition.is_narrowed for block in by_block for condition in block)
    if composed and not chosen and not is_narrowed:
        raise ConfigError(CONDITIONAL, text, "expected a condition that holds in a cell of the grid, found none")
    added = [math.prod(len(it.alternatives) for it in by_block[points[at].block]) for at in chosen]
    check_number(len(points) - len(chosen) + sum(added))
    found: list[Point] = []
    for at, point in enumerate(points):
        found += _extended(point, by_block[point.block]) if at in chosen else [point]
    return found


def _extended(point: Point, conditions: Sequence[Condition]) -> list[Point]:
    found = [point]
    for condition in conditions:
        known = {key_of(word) for _, words in found[0].conditional for word in words}
        if again := known.intersection(key_of(word) for words in condition.alternatives for word in words):
            raise ConfigError(CONDITIONAL, condition.text, f"expected one axis {min(again)} of a cell, found two")
        found = [
            _with(one, condition.text, words, at) for one in found for at, words in enumerate(condition.alternatives)
        ]
    return found


def _with(point: Point, condition: str, words: Words, at: int) -> Point:
    """Return a point with the `at`-th alternative of a condition."""
    slow, fast = point.place
    added = ((condition, words),) * bool(words)
    return replace(
        point,
        axes=(*point.axes, *words),
        conditional=(*point.conditional, *added),
        place=((*slow, at), fast),
    )
