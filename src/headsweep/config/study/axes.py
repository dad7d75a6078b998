"""One axis of a grid: a key and its values, as Hydra parses and as a cell is given them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice

from hydra.core.override_parser.types import Override, RangeSweep

from headsweep.errors import ConfigError, UserError
from headsweep.text import escaped

MOST_CELLS = 100_000  # of one command: more are a typing error, and fill the memory


@dataclass(frozen=True)
class Axis:
    """The values of a key."""

    key: str  # with Hydra's prefix and package, e.g. +model.options
    words: Sequence[str]  # an override for each value, of which those after `MOST_CELLS` + 1 are left out
    is_sweep: bool  # False: one value, not given as an axis

    @property
    def name(self) -> str:
        """The key without a prefix; the group `head` and the key `head.name` are the same."""
        return name_of(self.key)


def key_of(word: str) -> str:
    """Return the key of an override."""
    return word.partition("=")[0]


def name_of(key: str) -> str:
    """Return a key without Hydra's prefix and package; the group `head` and the key `head.name` are the same."""
    return key.lstrip("+~").partition("@")[0].removesuffix(".name")


def shown(word: str) -> str:
    """Return an override without the backslashes of Hydra's spelling."""
    return re.sub(r"\\([\\()\[\]{}:=, \t])", r"\1", word)


def read_axis(override: Override) -> Axis:
    """Return the values of a parsed override.

    Raises:
        UserError: it has none, or Hydra would expand it to others.
    """
    key, text = override.get_key_element(), escaped(override.input_line or "")
    if not override.is_sweep_override():
        return Axis(key, [f"{key}={override.get_value_element_as_str()}"], is_sweep=False)
    if not override.is_discrete_sweep():
        raise UserError(f"{text}: expected values, found an interval; give range(...), or values with commas")
    if isinstance(override.value(), RangeSweep) and re.search(r"\bsort\(", override.input_line or ""):
        raise UserError(f"{text}: expected a range in its own order, found a sorted one; give range(...) alone")
    words = [f"{key}={value}" for value in islice(_values(override), MOST_CELLS + 1)]
    if not words:
        raise ConfigError(key, None, "expected at least one value of an axis, found none")
    return Axis(key, words, is_sweep=True)


def _values(override: Override) -> Iterator[str]:
    """Yield the values of an axis; those of a range have the decimals of its start and step, without its end.

    Hydra adds binary fractions: its range(0.1,0.4,0.1) is 0.1, 0.2, 0.30000000000000004 and 0.4.
    """
    sweep = override.value()
    if not isinstance(sweep, RangeSweep) or not isinstance(next(iter(sweep.range()), None), float):
        yield from override.sweep_string_iterator()
        return
    decimals = max(0, *(-int(Decimal(repr(it)).as_tuple().exponent) for it in (sweep.start, sweep.step)))
    rounded = (round(float(value), decimals) for value in override.sweep_string_iterator())
    yield from (str(value) for value in rounded if value != sweep.stop)


def check_repeated(parsed: Sequence[Override]) -> None:
    """Raise UserError for a key given twice, if a grid would drop an axis, or keywords that a single run merges."""
    earlier: dict[str, Override] = {}
    for override in parsed:
        key = override.get_key_element()
        before = earlier.get(key)
        if before and (before.is_sweep_override() or isinstance(before.value(), dict)):
            found = f"{escaped(before.input_line or '')} and {escaped(override.input_line or '')}"
            raise UserError(f"{key}: expected one override in a grid, found {found}; leave one out")
        earlier[key] = override
