"""A table as one JSON object: the rows in full precision and the footnotes."""

from __future__ import annotations

import json
import re

from headsweep.report.formats.csv import record
from headsweep.report.table.model import Table

_CONTROLS = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def write(table: Table, made_by: str) -> str:
    """Return the table as JSON; `made_by` is the command that makes it again."""
    rows = [
        record(table, row) | {"seeds": list(row.seeds), "fingerprints": list(row.fingerprints)} for row in table.rows
    ]
    content = {
        "made_by": made_by,
        "metric": table.metric,
        "axes": list(table.axes),
        "tuned": list(table.tuned),
        "rows": rows,
        "footnotes": [note.text for note in table.footnotes if not note.explains_bold],
    }
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    # json escapes only the first 32 control characters.
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"
