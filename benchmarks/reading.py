"""Files of results, read: whatever may be wrong with one is found here, once."""

from __future__ import annotations

import json
import math
import reprlib
from pathlib import Path
from typing import Any

from headsweep.errors import UserError
from measuring import AA

PARTS: dict[str, type] = {"benchmark": str, "date": str, "machine": dict, "settings": dict, "rows": list}


def read(path: Path) -> dict[str, Any]:
    """A file of results; of a row whose last round was cut off, the rounds that all its sides have.

    Raises UserError, which names the file, where it is none.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {error}; want a file that a benchmark wrote with --json") from None
    if isinstance(content, dict):
        content.setdefault("settings", {})  # of files of before there were any
    if wrong := what_is_wrong(content):
        raise UserError(f"{path}: {wrong}; want a file that a benchmark wrote with --json")
    for row in content["rows"]:
        rounds = min(map(len, row["samples"].values()))
        row["samples"] = {side: values[:rounds] for side, values in row["samples"].items()}
    return content


def what_is_wrong(content: object) -> str:
    """With a file's content: the first thing that is, or nothing."""
    if not isinstance(content, dict):
        return "no JSON object"
    for key, kind in PARTS.items():
        if not isinstance(content.get(key), kind):
            return f"{key}: got {reprlib.repr(content.get(key))}, want a {kind.__name__}"
    return next(filter(None, map(what_is_wrong_with_row, content["rows"])), "")


def what_is_wrong_with_row(row: object) -> str:
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("name", "unit")):
        return f"a row without name or unit: {reprlib.repr(row)}"
    samples = row.get("samples")
    if not isinstance(samples, dict) or len(samples) < 1 + (row["name"] == AA):
        return f"row {row['name']}: got {reprlib.repr(samples)}, want samples by side"
    for side, values in samples.items():
        if not isinstance(values, list) or not values or not all(map(is_sample, values)):
            return f"row {row['name']}, {side}: got {reprlib.repr(values)}, want a list of numbers above 0"
    return ""


def is_sample(value: object) -> bool:
    return isinstance(value, (int, float)) and 0 < value < math.inf
