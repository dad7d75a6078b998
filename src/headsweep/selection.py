"""Recognize a selection of cells, e.g. `head=ga heads<2`; light, as commands ask before they import anything else."""

from __future__ import annotations

import re

from headsweep.errors import UserError

_CONDITION = re.compile("[^-=<>!]*[=<>!]")  # the names of runs, e.g. ga1-digits-lr=0.1-seed0, have - before
_QUOTES = re.compile("[`'\"]")  # of an MLflow filter, whose texts are quoted
# Keys of an MLflow filter with numbers, or with texts whose quotes were left out, which MLflow reports.
_MLFLOW = re.compile(r"(attr(ibute)?|run|param(eter)?|metric|tag)s?\.|(start_time|end_time|created)\b", re.IGNORECASE)


def is_condition(word: str) -> bool:
    """Return whether a word of a command is to be read as KEY=VALUE, not as a name."""
    return _CONDITION.match(word) is not None


def is_selection(text: str) -> bool:
    """Return whether a text is to be read as a selection of cells, not as a name or an MLflow filter."""
    return is_condition(text) and not _QUOTES.search(text) and not _MLFLOW.match(text.strip())


def refuse_selection(text: str, expected: str, advice: str) -> None:
    """Raise UserError for a selection where a command takes something else."""
    if is_selection(text):
        raise UserError(f"{text}: expected {expected}, found a selection of cells; {advice}")
