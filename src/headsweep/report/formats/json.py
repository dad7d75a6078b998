"""A table for programs: one object with the rows, in full precision, and the footnotes."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from headsweep.report.formats.csv import record

if TYPE_CHECKING:
    from headsweep.report.table.build import Table

_CONTROLS = re.compile("[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def write(table: Table, made_by: str) -> str:
    """`made_by` says how the table was asked for."""
    rows = [
        record(table, row) | {"seeds": list(row.seeds), "fingerprints": list(row.fingerprints)} for row in table.rows
    ]
    content = {
        "made_by": made_by,
        "metric": table.metric,
        "axes": list(table.axes),
        "rows": rows,
        "footnotes": [note.text for note in table.footnotes if not note.is_of_bold],
    }
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    # JSON itself writes out no more than the first 32 control characters.
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text) + "\n"
