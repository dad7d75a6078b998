"""The same table for a terminal, for Markdown and for machines."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table as RichTable

from headsweep.report.published import within_tolerance
from headsweep.report.results import MISSING
from headsweep.report.statistics import Estimate

if TYPE_CHECKING:
    from headsweep.report.table import Row, Table

_EXPENDABLE = (
    "head share",
    "top-5 %",
    "images/s",
    "FLOPs",
    "params",
)  # in the order in which a narrow screen loses them


@dataclass(frozen=True)
class _Column:
    title: str
    text: Callable[[Row], str]
    is_number: bool = True
    may_be_bold: bool = False


def to_terminal(table: Table, console: Console) -> None:
    """Print as many columns as fit, whole; say which do not."""
    columns, left_out = _columns(table), []
    for title in _EXPENDABLE:
        if _width(_rich(table, columns), console) <= console.width:
            break
        left_out += [title for column in columns if column.title == title]
        columns = [column for column in columns if column.title != title]
    console.print(_rich(table, columns))
    if left_out:
        console.print(f"Too wide for this screen: {', '.join(left_out)}. See table.md.", style="yellow")
    for note in table.footnotes:
        console.print(escape(note), style="dim", highlight=False)


def _width(rich: RichTable, console: Console) -> int:
    """Characters that the table needs to show every cell whole."""
    return Measurement.get(console, console.options.update(max_width=10_000), rich).maximum


def to_markdown(table: Table) -> str:
    """A table of GitHub's Markdown, then the footnotes as a list."""
    columns = _columns(table)
    lines = [
        _line([column.title for column in columns]),
        _line(["---:" if column.is_number else "---" for column in columns]),
    ]
    for row in table.rows:
        lines.append(_line([_emphasis(column, row, "**{}**") for column in columns]))
    return "\n".join([*lines, "", *(f"- {note}" for note in table.footnotes)]) + "\n"


def to_csv(table: Table) -> str:
    """Shares in [0, 1] and counts, in full precision; an empty field is a number that there is not."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _record(table, table.rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_record(table, row) for row in table.rows)
    return text.getvalue()


def _record(table: Table, row: Row) -> dict[str, object]:
    return {
        "head": row.head,
        "heads": row.heads,
        **dict(zip(table.axes, row.axes, strict=True)),
        "state": row.state,
        "n": len(row.seeds),
        "planned": row.planned,
        "seeds": " ".join(map(str, row.seeds)),
        "parameters": row.parameters,
        "flops": row.flops,
        "head_flops": row.head_flops,
        "images_per_second": row.images_per_second,
        **_fields("top1", row.top1),
        **_fields("top5", row.top5),
        **_fields("difference", row.difference),
        "difference_p": row.difference.p if row.difference else None,
        "difference_p_holm": row.p,
        "published_top1": " ".join(f"{number / 100:.6g}" for number in _printed(row, "top1")),
        "published_top5": " ".join(f"{number / 100:.6g}" for number in _printed(row, "top5")),
        "published_source": "; ".join(f"{entry.source}, {entry.printed_as}" for entry in row.published),
        "within_tolerance": within_tolerance(row),
        "fingerprints": " ".join(row.fingerprints),
    }


def _fields(name: str, value: Estimate | None) -> dict[str, object]:
    return {
        f"{name}_mean": value.mean if value else None,
        f"{name}_half_width": value.half_width if value else None,
        f"{name}_n": value.n if value else None,
    }


def _columns(table: Table) -> list[_Column]:
    unit, size = ("G", 1e9) if any((row.flops or 0) >= 1e9 for row in table.rows) else ("M", 1e6)
    axes = [
        _Column(axis, lambda row, at=at: row.axes[at], is_number=False)  # type: ignore[misc]
        for at, axis in enumerate(table.axes)
    ]
    columns = [
        _Column("head", lambda row: row.head, is_number=False),
        _Column("heads", lambda row: str(row.heads)),
        *axes,
        _Column("params", lambda row: MISSING if row.parameters is None else _count(row.parameters)),
        _Column("FLOPs", lambda row: MISSING if row.flops is None else f"{row.flops / size:.2f} {unit}"),
        _Column("head share", _head_share),
        _Column("images/s", lambda row: _speed(row.images_per_second)),
        _Column("n", _n),
        _Column("top-1 %", _top1, may_be_bold=True),
        _Column("published", lambda row: " / ".join(f"{top1:.2f}" for top1 in _printed(row, "top1")) or MISSING),
        _Column("top-5 %", lambda row: _percent(row.top5)),
        _Column("Δ top-1", _difference, may_be_bold=True),
        _Column("p", lambda row: MISSING if row.p is None else "< 0.001" if row.p < 0.001 else f"{row.p:.3f}"),
    ]
    absent = {
        "p": all(row.p is None for row in table.rows),
        "published": not any(_printed(row, "top1") for row in table.rows),
    }
    return [column for column in columns if not absent.get(column.title)]


def _printed(row: Row, metric: str) -> list[float]:
    """The published values of a metric, in the unit of the paper; several papers may have printed one."""
    return [number.value for entry in row.published if (number := getattr(entry, metric)) is not None]


def _count(number: int) -> str:
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.1f} k"


def _head_share(row: Row) -> str:
    return f"{100 * row.head_flops / row.flops:.1f} %" if row.flops and row.head_flops is not None else MISSING


def _speed(images_per_second: float | None) -> str:
    return MISSING if images_per_second is None else f"{images_per_second:.0f}"


def _n(row: Row) -> str:
    return str(len(row.seeds)) if len(row.seeds) == row.planned else f"{len(row.seeds)}/{row.planned}"


def _top1(row: Row) -> str:
    return _percent(row.top1) if row.state == "finished" else f"{row.state} ({_seeds(row.seeds)})"


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 3:
        return f"{len(seeds)} seeds"
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _percent(value: Estimate | None, sign: str = "") -> str:
    if value is None:
        return MISSING
    mean = f"{100 * value.mean:{sign}.2f}"
    return mean if value.half_width is None else f"{mean} ± {100 * value.half_width:.2f}"


def _difference(row: Row) -> str:
    if row.is_reference:
        return "reference"
    own_n = row.difference is not None and row.top1 is not None and row.difference.n != row.top1.n
    return _percent(row.difference, "+") + (f" (n={row.difference.n})" if own_n and row.difference else "")


def _rich(table: Table, columns: Sequence[_Column]) -> RichTable:
    rich = RichTable(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for column in columns:
        rich.add_column(column.title, justify="right" if column.is_number else "left", no_wrap=True)
    for row in table.rows:
        rich.add_row(*(_emphasis(column, row, "[bold]{}[/bold]", escape) for column in columns))
    return rich


def _emphasis(column: _Column, row: Row, bold: str, quote: Callable[[str], str] = str) -> str:
    text = quote(column.text(row))
    return bold.format(text) if column.may_be_bold and row.is_better else text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
