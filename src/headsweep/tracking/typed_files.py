"""Read files that other programs may have written or a crash may have damaged: as typed values, or raise `Damaged`."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from headsweep.errors import UserError

MAX_LEVELS = 16  # of nested JSON: more than any configuration has, and far below Python's recursion limit


class Record(Protocol):
    """A dataclass whose values have ranges."""

    def check(self) -> None:
        """Raise ValueError, which names the key, for a value out of range."""


T = TypeVar("T", bound=Record)


class Damaged(UserError):  # noqa: N818 - as a state of a run
    """A file does not hold what headsweep writes there.

    Args:
        path: the file.
        reason: what was expected and what was found.
        fix: what the user can do.
    """

    def __init__(self, path: Path, reason: str, fix: str) -> None:
        self.path, self.reason, self.fix = path, reason, fix
        super().__init__(f"damaged: {path}, {reason}; {fix}")

    def __reduce__(self) -> tuple[type, tuple[Path, str, str]]:
        return Damaged, (self.path, self.reason, self.fix)


def read_bytes(path: Path, fix: str) -> bytes | None:
    """Return the content of a file; None if there is none.

    Raises:
        Damaged: it is a link, which could lead anywhere, or no file, or not readable.
    """
    try:
        if path.is_symlink():
            raise Damaged(path, "expected a file, found a link", fix)
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Damaged(path, f"it cannot be read ({error.strerror or error})", fix) from error


def read_text(path: Path, fix: str) -> str | None:
    """Return the UTF-8 text of a file; None if there is none. Raises Damaged as `read_bytes`, or for other bytes."""
    content = read_bytes(path, fix)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError as error:
        raise Damaged(path, f"expected UTF-8 text, found other bytes at {error.start}", fix) from error


def read_json(path: Path, kind: type[T], fix: str) -> T | None:
    """Return the JSON of a file as the dataclass `kind`; None if there is no file.

    Raises:
        Damaged: as `read_text`; or a key is missing or unknown, or a value has another type or is out of range.
    """
    text = read_text(path, fix)
    try:
        return None if text is None else parse_json(text, kind)
    except ValueError as error:
        raise Damaged(path, str(error), fix) from error


def parse_json(text: str | bytes, kind: type[T]) -> T:
    """Return JSON as the dataclass `kind`. Raises ValueError, in one line, for anything else."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON, found something else ({error})") from error
    found: T = conform(content, kind)
    found.check()
    return found


def conform(value: Any, kind: Any, key: str = "") -> Any:
    """Return a value of `json.loads` as the annotated type `kind`. Raises ValueError, which names the key."""
    if type(value) is kind:  # most values; fast
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        _check_levels(value, key)
        return value
    if origin in (Union, types.UnionType):
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return None if value is None else conform(value, inner, key)
    if is_dataclass(kind):
        return _conform_fields(_of_type(value, dict, key), kind, key)
    if origin is dict:
        if isinstance(value, dict) and {type(item) for item in value.values()} == {arguments[1]}:
            return value  # a line of metrics, of which there are many
        items = _of_type(value, dict, key).items()
        return {name: conform(item, arguments[1], _joined(key, name)) for name, item in items}
    if origin in (list, tuple):
        items = (conform(item, arguments[0], f"{key}[{at}]") for at, item in enumerate(_of_type(value, list, key)))
        return origin(items)
    return _of_type(value, kind, key)


def require(key: str, value: object, is_right: bool, expected: str) -> None:
    """Raise ValueError unless `is_right`."""
    if not is_right:
        raise ValueError(f"{key}: expected {expected}, found {_shown(value)}")


def check_shares(metrics: Mapping[str, float]) -> None:
    """Raise ValueError for an accuracy or AUROC outside [0, 1]; NaN, of a run that has diverged, is allowed."""
    for name, value in metrics.items():
        if name.rpartition("/")[2].startswith(("top", "mean_per_class", "auroc")):
            require_share(name, value)


def require_share(name: str, value: float) -> None:
    """Raise ValueError for an accuracy outside [0, 1]."""
    if value < 0 or value > 1:
        require(name, value, False, "a number in [0, 1]")


def _conform_fields(value: dict[str, Any], kind: Any, key: str) -> Any:
    hints, needed = _fields(kind)
    for name in value:
        if name not in hints:
            raise ValueError(f"{_joined(key, name)}: unknown key; expected one of {', '.join(hints)}")
    for name in needed:
        if name not in value:
            require(_joined(key, name), None, False, "a value")
    return kind(**{name: conform(item, hints[name], _joined(key, name)) for name, item in value.items()})


@cache
def _fields(kind: Any) -> tuple[dict[str, Any], list[str]]:
    """Return the type of each field, and the fields without a default."""
    needed = [it.name for it in fields(kind) if it.default is MISSING and it.default_factory is MISSING]
    return get_type_hints(kind), needed


def _of_type(value: Any, kind: type, key: str) -> Any:
    accepted = (int, float) if kind is float else kind
    is_right = isinstance(value, accepted) and not (isinstance(value, bool) and kind is not bool)
    require(key or "content", value, is_right, _NOUNS.get(kind, kind.__name__))
    if kind is float and isinstance(value, int):
        require(key, value, abs(value) <= sys.float_info.max, "a number that fits 64 bits")
    return value


_NOUNS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "an integer",
    float: "a number",
    bool: "true or false",
}


def _check_levels(value: Any, key: str, level: int = 0) -> None:
    require(key, "more", level <= MAX_LEVELS, f"at most {MAX_LEVELS} levels of nested values")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_levels(item, key, level + 1)


def _joined(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _shown(value: object) -> str:
    """Return a value in at most 40 characters."""
    if value is None:
        return "none"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
