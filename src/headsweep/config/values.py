"""One way to compare a value with a configuration, and to read the words KEY=VALUE of a command line."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString
from hydra.errors import HydraException

from headsweep.errors import UserError

_NAME = re.compile(r"[A-Za-z_][\w.-]*")
_SEPARATOR = re.compile(r"[,\s]+(?=[\w.]+=)")  # what stands between two words; other commas and blanks are in a value


def matches(wanted: Any, value: Any) -> bool:
    """Is `value`, of a configuration, the `wanted` one, which may be as Hydra's command line has it?"""
    return canonical(wanted) == canonical(value)


def canonical(value: Any) -> str:
    """The same text for equal values, however they are written: 1e-3, 0.001 and the texts of both.

    Values come typed (a run's folder), as text (MLflow) or as words of a command line.
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
    """Of a text that is none of Hydra's, such as a dictionary as MLflow keeps it."""
    try:
        return canonical(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text


def read_words(given: Sequence[str], option: str = "") -> dict[str, str]:
    """Key -> value of words KEY=VALUE, several of which may stand in one, with commas or blanks between them.

    Raises:
        UserError: a word is none; the message begins with `option`.
    """
    words = [word for text in given for word in _SEPARATOR.split(text.strip(", "))]
    pairs = [word.partition("=") for word in words]
    for word, (key, _, value) in zip(words, pairs, strict=True):
        if not (key and value):
            raise UserError(f"{option}{word!r}: expected KEY=VALUE, e.g. head=seqpool or head=seqattn,heads=4")
    return {key: value for key, _, value in pairs}
