"""Leave cells out of a grid: a product of axes, as Hydra expands it, has all of them.

An exclusion is a text such as `head=ga heads<2` (see `headsweep.config.values`); a cell is left out when all its
conditions hold. It applies to the composed configuration before any rule between keys is checked, so that it can drop
cells that would be no valid run.

A value compared with = or != must be one that the grid has, or one of a study's axis that the command line narrowed
(`+sweeps=table1 heads=1`): any other is a misspelling, which would leave out no cell, or every cell.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from omegaconf import DictConfig, OmegaConf

from headsweep.config.omegaconf_errors import unknown_key
from headsweep.config.study.grid import Cell
from headsweep.config.values import Condition, canonical, matches, read_conditions
from headsweep.errors import ConfigError

_KEY = "hydra.launcher.exclude"
_LISTS = (ValueType.SIMPLE_CHOICE_SWEEP, ValueType.CHOICE_SWEEP)
_ABSENT = object()


@dataclass(frozen=True)
class Exclusions:
    """What a grid leaves out."""

    lines: Sequence[str]
    axes: Sequence[str] = ()  # as overrides such as `head=gap,ga`, with the values that the command line narrowed away

    def __post_init__(self) -> None:
        if isinstance(self.lines, str) or not isinstance(self.lines, Sequence):
            raise ConfigError(
                _KEY, self.lines, """expected a list; quote it for the shell: 'exclude=["head=ga heads<2"]'"""
            )


def left_out(cells: Sequence[DictConfig | Cell], exclusions: Exclusions) -> list[bool]:
    """Return for each of the composed `cells` whether one of the `exclusions` leaves it out.

    Raises:
        ConfigError: an exclusion cannot be read, names a key that no cell has or a value that no axis has, or orders
            text; or no cell is left.
    """
    answers = [False] * len(cells)
    for exclusion in map(str, exclusions.lines):
        found = all_hold(exclusion, cells, exclusions.axes, _KEY)
        answers = [old or new for old, new in zip(answers, found, strict=True)]
    if all(answers):
        raise ConfigError(_KEY, None, f"leaves out all {len(cells)} cells of the grid; expected at least one to remain")
    return answers


def all_hold(text: str, cells: Sequence[DictConfig | Cell], axes: Sequence[str], key: str) -> list[bool]:
    """Return for each of the composed `cells` whether all conditions of a text hold.

    Args:
        text: the value of `key`, e.g. `head=ga heads<2`.
        cells: of one grid.
        axes: overrides with values that no cell need have.
        key: for the message.

    Raises:
        ConfigError: as `left_out`, for the conditions of `text`.
    """
    answers = [True] * len(cells)
    try:
        for condition in read_conditions(text):
            # Only where all conditions before it hold: `head=ga head.gram_dim<32` may be in a grid without ga.
            found = {at: _value(cells[at], condition.key) for at, still in enumerate(answers) if still}
            if condition.key in ("variant", "variants"):
                raise ValueError("expected a condition on keys of a run, which cannot name a variant")
            if found and all(value is _ABSENT for value in found.values()):
                raise ValueError(unknown_key(condition.key))
            if not condition.is_ordering and not any(matches(condition.value, value) for value in found.values()):
                _check_value(condition, cells, axes)
            answers = [
                at in found and found[at] is not _ABSENT and condition.holds(found[at]) for at in range(len(cells))
            ]
    except ValueError as error:
        raise ConfigError(key, text, str(error)) from error
    return answers


def _check_value(condition: Condition, cells: Sequence[DictConfig | Cell], axes: Sequence[str]) -> None:
    """Raise ValueError if neither a cell nor an axis has the value."""
    values = [value for cell in cells if (value := _value(cell, condition.key)) is not _ABSENT]
    if not values or any(matches(condition.value, value) for value in [*values, *_values(axes, condition.key)]):
        return
    known = ", ".join(dict.fromkeys(map(canonical, values)))
    raise ValueError(f"no cell has {condition.key}={condition.value}; the grid has {known}")


def _values(axes: Sequence[str], key: str) -> Iterator[Any]:
    """Yield the values of an axis; the axis `head` and the key `head.name` are the same."""
    for axis in OverridesParser.create().parse_overrides(list(axes)):
        if axis.value_type in _LISTS and axis.key_or_group.removesuffix(".name") == key.removesuffix(".name"):
            yield from axis.sweep_iterator()


def _value(cell: DictConfig | Cell, key: str) -> Any:
    """Return the value of a dotted key in a cell; a group such as `head` is its name."""
    value = _select(cell, key)
    return _select(cell, f"{key}.name") if isinstance(value, DictConfig) else value


def _select(cell: DictConfig | Cell, key: str) -> Any:
    if isinstance(cell, Cell):
        return cell.select(key, _ABSENT)
    return OmegaConf.select(cell, key, default=_ABSENT)
