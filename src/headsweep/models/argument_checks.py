"""Checks of arguments from Python code, whose types no schema has checked."""

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from timm.models._features import feature_take_indices

from headsweep.errors import UserError


def check_integer(key: str, value: Any, least: int) -> None:
    """Raise UserError unless `value` is an integer of at least `least`."""
    if not _is_integer(value) or value < least:
        raise _refusal(key, value, f"an integer >= {least}")


def check_rate(key: str, value: Any) -> None:
    """Raise UserError unless `value` is a probability below 1."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise _refusal(key, value, "a number in [0, 1)")


def check_image_size(key: str, value: Any) -> None:
    """Raise UserError unless `value` is a number of pixels or a pair of them."""
    sides = value if isinstance(value, Sequence) and not isinstance(value, str) else (value, value)
    if len(sides) != 2 or not all(_is_integer(side) and side >= 1 for side in sides):
        raise _refusal(key, value, "an integer >= 1 or a pair of them, (rows, columns)")


def check_feature_indices(key: str, value: Any, depth: int) -> None:
    """Raise UserError unless `value` selects among the features of `depth` blocks."""
    try:
        feature_take_indices(depth, value)
    except (AssertionError, TypeError) as error:
        expected = f"how many of the last blocks, 1 to {depth}, or a list of block numbers, 0 to {depth - 1}"
        raise _refusal(key, value, expected) from error


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _refusal(key: str, value: Any, expected: str) -> UserError:
    return UserError(f"{key}={value!r}: expected {expected}")
