r"""A table for a paper, with its footnotes below: booktabs, and numbers aligned by siunitx.

The paper needs \usepackage{booktabs} and \usepackage{siunitx}.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from headsweep.report.table.columns import EN_DASH, MINUS, Entry, rounded
from headsweep.report.table.layout import Heading, Sheet
from headsweep.text import one_line

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "—": "---",
    "±": r"$\pm$",
    "Δ": r"$\Delta$",
    "<": r"$<$",
    ">": r"$>$",
    "λ": r"$\lambda$",
    MINUS: r"$-$",
    EN_DASH: "--",
    "|": r"\textbar{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}

SETUP = r"\sisetup{separate-uncertainty=true, retain-explicit-plus=true, detect-weight=true}"


def write(sheet: Sheet) -> str:
    """Return the sheet as a tabular, followed by its footnotes."""
    lines = [
        r"\begingroup",
        SETUP,
        rf"\begin{{tabular}}{{@{{}}{''.join(map(_format, sheet.headings, _by_column(sheet)))}@{{}}}}",
        r"\toprule",
        *_groups(sheet.headings),
        _line([_title(heading) for heading in sheet.headings]),
        r"\midrule",
        *(_line(list(map(_entry, sheet.headings, row))) for row in sheet.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\endgroup",
        *(rf"\par\smallskip{{\footnotesize {escape(note)}\par}}" for note in sheet.notes()),
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Return the text in one line, with the special characters of TeX escaped."""
    return re.sub("|".join(map(re.escape, _SPECIAL)), lambda match: _SPECIAL[match[0]], one_line(text))


def comment(text: str) -> str:
    """Return the text as a comment of one line: what follows a line end would not be a comment."""
    return f"% {one_line(text)}"


def _by_column(sheet: Sheet) -> list[tuple[Entry, ...]]:
    return list(zip(*sheet.rows, strict=True)) if sheet.rows else [()] * len(sheet.headings)


def _format(heading: Heading, entries: Sequence[Entry]) -> str:
    """Return an S column wide enough for its numbers; else text, which is right-aligned in a column of numbers."""
    numbers = [entry for entry in entries if entry.number is not None]
    if not numbers:
        return "r" if heading.is_number else "l"
    decimals = max(entry.decimals for entry in numbers)
    whole = max(len(f"{abs(entry.number or 0):.0f}") for entry in numbers)
    sign = "+" if any(entry.sign or (entry.number or 0) < 0 for entry in numbers) else ""
    halves = [entry.half_width for entry in numbers if entry.half_width is not None]
    uncertainty = f"({len(f'{max(halves) * 10**decimals:.0f}')})" if halves else ""
    note = max((entry.note for entry in numbers), key=len)
    space = f", table-space-text-post={_note(note)}" if note else ""
    return f"S[table-format={sign}{whole}.{decimals}{uncertainty}{space}]"


def _groups(headings: Sequence[Heading]) -> list[str]:
    """Return the headings that span the columns of each group of a pivot."""
    if not any(heading.group for heading in headings):
        return []
    cells, rules, at = [], [], 1
    for group, members in groupby(headings, key=lambda heading: heading.group):
        width = len(list(members))
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}" if group else "&" * (width - 1))
        rules += [rf"\cmidrule(lr){{{at}-{at + width - 1}}}"] * bool(group)
        at += width
    return [_line(cells), " ".join(rules)]


def _title(heading: Heading) -> str:
    text = escape(heading.label)
    return f"{{{text}}}" if heading.is_number else text


def _entry(heading: Heading, entry: Entry) -> str:
    """Return an entry; text in braces is not parsed by siunitx."""
    if entry.number is None:
        text = escape(entry.text)
        return f"{{{text}}}" if heading.is_number else text
    number = rounded(entry.number, entry.decimals, entry.sign)
    if entry.half_width is not None:
        number += rf" \pm {entry.half_width:.{entry.decimals}f}"
    number += f" {_note(entry.note)}" if entry.note else ""
    return rf"\bfseries {number}" if entry.bold else number


def _note(text: str) -> str:
    return f"{{~{escape(text)}}}"


def _line(cells: Sequence[str]) -> str:
    guard = "{}" if cells[0].startswith(("[", "*")) else ""  # else it is parsed as an option of the line end above
    return guard + " & ".join(cells) + r" \\"
