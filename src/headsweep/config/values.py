"""Compare a value with a configuration, and read the conditions KEY OP VALUE of a command line."""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

from headsweep.errors import UserError

ABSENT = object()  # the value of a key that a configuration lacks
_NAME = re.compile(r"[A-Za-z_][\w.-]*")
# Commas and whitespace before KEY OP; all others are part of a value.
_SEPARATOR = re.compile(r"[,\s]+(?=[\w.]+(?:!=|[<>]=?|=))")
_CONDITION = re.compile(r"([^\s=<>!]+)(!=|<=|>=|=|<|>)([^=<>].*)")
_WORD = re.compile(r"([^\s=<>!]+)=(.+)")  # a value may begin with a sign, as the name of a variant
_ORDERS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Condition:
    """One part of a selection of cells, e.g. head=ga or heads<2."""

    key: str
    operator: str  # = != < <= > >=
    value: str

    @property
    def is_ordering(self) -> bool:
        """Whether the condition compares sizes, so that no cell need have exactly its value."""
        return self.operator in _ORDERS

    def holds(self, value: Any) -> bool:
        """Return whether `value`, of a configuration, meets the condition; null meets no ordering.

        Raises:
            ValueError: the condition orders text.
        """
        if not self.is_ordering:
            return matches(self.value, value) is (self.operator == "=")
        if value is None:
            return False
        numbers = _number(value), _number(self.value)
        if numbers[0] is None or numbers[1] is None:
            text = value if numbers[0] is None else self.value
            raise ValueError(f"expected a number, found the text {text!r}; use = or !=")
        return _ORDERS[self.operator](numbers[0], numbers[1])

    def __str__(self) -> str:
        return f"{self.key}{self.operator}{self.value}"


def read_conditions(text: str) -> list[Condition]:
    """Read the conditions of a text such as `head=ga heads<2`, with commas or whitespace between them.

    Raises:
        ValueError: a part of the text is no condition.
    """
    found = []
    for word in _SEPARATOR.split(text.strip(", ")):
        if (match := _CONDITION.fullmatch(word)) is None:
            raise ValueError(f"expected KEY OP VALUE, e.g. 'head=ga heads<2', found {word!r}")
        found.append(Condition(*match.groups()))
    return found


def read_words(given: Sequence[str], option: str = "") -> dict[str, str]:
    """Return key -> value of conditions KEY=VALUE, several of which may be in one text.

    Raises:
        UserError: a text has something else; the message begins with `option`.
    """
    pairs: dict[str, str] = {}
    for text in given:
        for word in _SEPARATOR.split(text.strip(", ")):
            if (match := _WORD.fullmatch(word)) is None:
                raise UserError(f"{option}{text!r}: expected KEY=VALUE, e.g. head=seqpool or head=seqattn,heads=4")
            pairs[match[1]] = match[2]
    return pairs


def value_at(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key in a run's configuration, or `ABSENT`; a group such as `head` is its name."""
    found: Any = config
    for part in key.split("."):
        found = found.get(part, ABSENT) if isinstance(found, Mapping) else ABSENT
    return found.get("name", ABSENT) if isinstance(found, Mapping) else found


def matches(expected: Any, value: Any) -> bool:
    """Return whether `value`, of a configuration, equals `expected`, which may be written as in an override."""
    return canonical(expected) == canonical(value)


def canonical(value: Any) -> str:
    """Return the same text for equal values, however they are written: 1e-3, 0.001 and the texts of both.

    Values are typed (from a run's folder), text (from MLflow) or words of a command line.
    """
    if isinstance(value, QuotedString):
        return canonical(value.text)
    if isinstance(value, str):
        return _canonical_text(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return str(int(value)) if math.isfinite(value) and value == int(value) else repr(float(value))
    if isinstance(value, Mapping):
        return f"{{{','.join(sorted(f'{key}:{canonical(item)}' for key, item in value.items()))}}}"
    if isinstance(value, Sequence):
        return f"[{','.join(map(canonical, value))}]"
    return str(value)


@lru_cache(maxsize=4096)  # thousands of cells share their values
def _canonical_text(text: str) -> str:
    if text == "None":  # how Python and MLflow write null
        return "null"
    if _NAME.fullmatch(text) and text.lower() not in {"true", "false", "null", "nan", "inf"}:
        return text
    try:
        override = OverridesParser.create().parse_override(f"key={text}")
    except HydraException:
        return _canonical_python(text)
    value = override.value()
    return text if override.is_sweep_override() or value == text or value == "" else canonical(value)


def _canonical_python(text: str) -> str:
    """Return the canonical text of a Python literal, e.g. a dictionary as MLflow keeps it."""
    try:
        return canonical(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
