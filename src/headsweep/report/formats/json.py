"""A table for programs: one object with the rows, in full precision, and the footnotes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from headsweep.report.formats.csv import record

if TYPE_CHECKING:
    from headsweep.report.table import Table


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
        "footnotes": list(table.footnotes),
    }
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
