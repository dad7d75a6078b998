"""Cells that a grid leaves out: what Hydra's product of axes cannot say.

An exclusion is a line such as `head=ga heads<2`: its parts are KEY OP VALUE with OP one of = != < <= > >=, and a cell
is left out when all parts of one line hold. It looks at the composed configuration before any rule between keys does,
so that it can drop cells that would be no valid run.

A value that is asked for with = or != must be one that the grid has, or that a study's axes have which the command line
has narrowed (`+sweeps=table1 heads=1`): any other is a slip of the pen, which would leave out nothing, or everything.
"""

from __future__ import annotations

import operator
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from omegaconf import DictConfig, OmegaConf

from headsweep.config.grid import Cell
from headsweep.config.omegaconf_errors import unknown_key
from headsweep.config.values import canonical, matches
from headsweep.errors import ConfigError

_KEY = "hydra.launcher.exclude"
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LISTS = (ValueType.SIMPLE_CHOICE_SWEEP, ValueType.CHOICE_SWEEP)
_ABSENT = object()


@dataclass(frozen=True)
class Exclusions:
    """What a grid is to leave out."""

    lines: Sequence[str]
    axes: Sequence[str] = ()  # all axes, as overrides such as `head=gap,ga`, of which some cells may not be asked for

    def __post_init__(self) -> None:
        if isinstance(self.lines, str) or not isinstance(self.lines, Sequence):
            raise ConfigError(
                _KEY, self.lines, """want a list; quote it for the shell: 'exclude=["head=ga heads<2"]'"""
            )


def left_out(cells: Sequence[DictConfig | Cell], exclusions: Exclusions) -> list[bool]:
    """Which of the composed `cells` are left out by one of the `exclusions`.

    Raises:
        ConfigError: an exclusion cannot be read, names a key that no cell has or a value that no axis has, or orders
            text; or no cell is left.
    """
    answers = [False] * len(cells)
    for exclusion in map(str, exclusions.lines):
        answers = [old or new for old, new in zip(answers, _all_hold(exclusion, cells, exclusions.axes), strict=True)]
    if all(answers):
        raise ConfigError(_KEY, None, f"leaves out every cell of the grid ({len(cells)}); want at least one kept")
    return answers


@dataclass(frozen=True)
class _Part:
    """One condition of an exclusion."""

    key: str
    operator: str
    wanted: str

    def holds(self, got: Any) -> bool:
        """Does the value `got` of a cell fulfil the condition?"""
        if not self.orders:
            return matches(self.wanted, got) is (self.operator == "=")
        if got is None:
            return False
        numbers = _number(got), _number(self.wanted)
        if numbers[0] is None or numbers[1] is None:
            text = got if numbers[0] is None else self.wanted
            raise ConfigError(_KEY, self, f"{text!r} is text, which has no order; want = or !=")
        return _ORDERS[self.operator](numbers[0], numbers[1])

    @property
    def orders(self) -> bool:
        """Does it ask for less or more than a value, which no cell need have?"""
        return self.operator in _ORDERS

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{self.wanted}"


def _all_hold(exclusion: str, cells: Sequence[DictConfig | Cell], axes: Sequence[str]) -> list[bool]:
    answers = [True] * len(cells)
    for part in _parts(exclusion):
        # Only where all parts before it hold: `head=ga head.gram_dim<32` may stand in a grid that has no ga.
        got = {at: _value(cells[at], part.key) for at, still in enumerate(answers) if still}
        if got and all(value is _ABSENT for value in got.values()):
            raise ConfigError(_KEY, exclusion, str(unknown_key(part.key)))
        if not part.orders and not any(matches(part.wanted, value) for value in got.values()):
            _check_value(part, exclusion, cells, axes)
        answers = [at in got and got[at] is not _ABSENT and part.holds(got[at]) for at in range(len(cells))]
    return answers


def _check_value(part: _Part, exclusion: str, cells: Sequence[DictConfig | Cell], axes: Sequence[str]) -> None:
    """Raise ConfigError if neither a cell nor an axis has the value."""
    values = [value for cell in cells if (value := _value(cell, part.key)) is not _ABSENT]
    if not values or any(matches(part.wanted, value) for value in [*values, *_values(axes, part.key)]):
        return
    known = ", ".join(dict.fromkeys(map(canonical, values)))
    raise ConfigError(_KEY, exclusion, f"no cell has {part.key}={part.wanted}; the grid has {known}")


def _values(axes: Sequence[str], key: str) -> Iterator[Any]:
    """The values of an axis; that of a group has the group's name, an exclusion may say `.name`."""
    for axis in OverridesParser.create().parse_overrides(list(axes)):
        if axis.value_type in _LISTS and axis.key_or_group.removesuffix(".name") == key.removesuffix(".name"):
            yield from axis.sweep_iterator()


def _parts(exclusion: str) -> Iterator[_Part]:
    try:
        words = shlex.split(exclusion)
    except ValueError as error:
        raise ConfigError(_KEY, exclusion, f"cannot be read ({error})") from error
    for word in words or [exclusion]:
        match = re.fullmatch(r"([\w.]+)(!=|<=|>=|=|<|>)([^=<>].*)", word)
        if match is None:
            raise ConfigError(_KEY, exclusion, f"cannot read {word!r}; want KEY OP VALUE, e.g. 'head=ga heads<2'")
        yield _Part(*match.groups())


def _value(cell: DictConfig | Cell, key: str) -> Any:
    """The value of a dotted key in a cell; a group such as `head` is its name."""
    value = _select(cell, key)
    return _select(cell, f"{key}.name") if isinstance(value, DictConfig) else value


def _select(cell: DictConfig | Cell, key: str) -> Any:
    if isinstance(cell, Cell):
        return cell.select(key, _ABSENT)
    return OmegaConf.select(cell, key, default=_ABSENT)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
