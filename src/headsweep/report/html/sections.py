"""The parts of a page that are words and tables, each with its heading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

from headsweep.report.formats import html
from headsweep.report.formats.html import escape
from headsweep.report.html.drawing import Drawing
from headsweep.report.html.origin import Origin
from headsweep.report.html.selection import compared, metric_noun
from headsweep.report.read.cells import Run
from headsweep.report.table.build import Table
from headsweep.report.table.columns import ABSENT, COLUMNS
from headsweep.report.table.inconsistencies import code_version
from headsweep.report.table.layout import Sheet, flat
from headsweep.tracking.run_folder import RunState
from headsweep.tracking.typed_files import Damaged

COSTS = ("parameters", "head_parameters", "flops", "head_flops", "images_per_second", "time", "peak_memory")
LAST = (*COSTS, "head_share")
MOST_FAILURES = 100
MOST_OF_A_NAME = 16  # letters of a head in one line
MOST_VALUES = 6  # of one thing of the environment


@dataclass(frozen=True)
class Section:
    """One part of a page."""

    name: str  # its anchor
    title: str
    body: str  # HTML


def question(table: Table, origin: Origin) -> Section:
    """What was asked: the axes and their values, how many seeds, and what stands against what."""
    runs = _runs(table)
    axes = {"head": [cell.head for cell in table.cells], "heads": [str(cell.heads) for cell in table.cells]}
    axes |= {axis: [str(cell.value(axis)) for cell in table.cells] for axis in table.axes}
    listed = "".join(_term(axis, ", ".join(dict.fromkeys(values))) for axis, values in axes.items())
    counts = sorted({len(cell.runs) for cell in table.cells})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    finished = sum(run.finished for run in runs)
    facts = _term("seeds of a cell", seeds)
    facts += _term("runs", f"{len(runs)} in {len(table.cells)} cells, {finished} of them finished")
    facts += _term("compared with", _references(table))
    study = f"<pre>{'<br>'.join(map(escape, origin.study.splitlines()))}</pre>" if origin.study else ""
    commands = "".join(f"<p><code>{escape(command)}</code></p>" for command in origin.commands)
    return Section("question", "Question", f"{study}{commands}<dl>{listed}{facts}</dl>{_shared(table)}")


def warned(table: Table) -> Section | None:
    """What weakens the numbers; None if nothing does."""
    notes = [*map(str, table.warnings), *_gaps(table)]
    return Section("warnings", "Before you read on", _list(notes)) if notes else None


def comparison(table: Table) -> Section:
    """The table itself; what a narrow screen shows without scrolling is accuracy and difference, not the costs."""
    sheet = flat(table)
    first = (table.metric, "difference", "p")

    def place(at: int) -> int:
        name = sheet.headings[at].name
        if name not in COLUMNS:  # an axis
            return -1
        return first.index(name) if name in first else len(first) + (name in LAST)

    order = sorted(range(len(sheet.headings)), key=place)
    headings = tuple(sheet.headings[at] for at in order)
    rows = tuple(tuple(row[at] for at in order) for row in sheet.rows)
    return Section("table", "Table", _scrolling(Sheet(headings, rows, footnotes=()), "Comparison of the cells"))


def figures(name: str, title: str, drawings: Sequence[Drawing], otherwise: str) -> Section:
    """Figures beside each other as far as they fit; the words `otherwise` where there are none."""
    shown = "".join(
        f"<figure>{drawing.inline()}<figcaption><strong>{escape(drawing.figure.title)}.</strong> "
        f"{escape(drawing.figure.caption)}</figcaption></figure>"
        for drawing in drawings
    )
    return Section(name, title, f'<div class="figures">{shown}</div>' if drawings else f"<p>{escape(otherwise)}</p>")


def costs(table: Table, drawings: Sequence[Drawing]) -> Section:
    """Time and memory, as figures and in full."""
    shown = figures("costs", "Time and memory", drawings, "No run has measured its time.")
    names = [name for name in COSTS if any(entry != ABSENT for entry in COLUMNS[name].entries(table.rows)[1])]
    sheet = _finished(table, replace(flat(table, names), footnotes=()))
    note = "<p>As measured in training, beside whatever else the machine did: medians over seeds.</p>"
    return replace(shown, body=shown.body + _scrolling(sheet, "Costs of the cells") + note)


def failures(table: Table) -> Section | None:
    """The runs without a result and why; None if all have one."""
    missing = [run for run in _runs(table) if not run.finished and not run.screened_out]
    if not missing:
        return None
    rows = "".join(map(_failure, missing[:MOST_FAILURES]))
    more = len(missing) - MOST_FAILURES
    rest = f"<p>And {more} more: <code>headsweep status</code> lists them.</p>" if more > 0 else ""
    heading = "<tr>" + "".join(f'<th scope="col">{title}</th>' for title in ("run", "state", "why", "log")) + "</tr>"
    table_ = f'<table class="list"><thead>{heading}</thead><tbody>{rows}</tbody></table>'
    return Section("failures", "Runs without a result", _region(table_, "Runs without a result") + rest)


def environment(table: Table) -> Section:
    """Where the runs were trained, and with which code and data."""
    runs = _runs(table)
    known: dict[str, Counter[str]] = {
        "code": Counter(map(code_version, runs)),
        "data": Counter(run.data for run in runs if run.data),
    }
    for run in runs:
        for key, value in (run.result.environment if run.result else {}).items():
            if value is not None:
                known.setdefault(key, Counter())[str(value)] += 1
    listed = "".join(_term(key, _counted(values)) for key, values in known.items() if values)
    return Section("environment", "Environment", f"<dl>{listed}</dl>")


def notes(table: Table, made_by: str) -> Section:
    """How the numbers were made."""
    said = [str(note) for note in table.footnotes if note not in table.warnings]
    made = f"<p>Made by <code>{escape(made_by)}</code>; every figure lies in <code>figures</code> beside it, too.</p>"
    return Section("notes", "How the numbers were made", _list(said) + made)


def _gaps(table: Table) -> Iterator[str]:
    """What is not there to be compared, or shows no spread."""
    finished = [row for row in table.rows if row.state == "finished"]
    if not finished:
        yield "NO RUN HAS FINISHED: there is nothing to compare yet."
    what, of = metric_noun(table), f"of {len(finished)} rows"
    if without := sum(compared(row) is None for row in finished):
        yield f"NO {what.upper()} in {without} {of}: their runs did not measure it, or it is not a number."
    if alone := sum((value := compared(row)) is not None and value.n == 1 for row in finished):
        yield f"ONE SEED in {alone} {of}: no interval, and no claim that a head is better."


def _references(table: Table) -> str:
    """The rows that others are compared with, by head."""
    heads = dict.fromkeys(row.head for row in table.rows if row.is_reference)
    others = sum(row.difference is not None for row in table.rows)
    if not others:
        return "nothing: no two cells can be compared"
    return f"{', '.join(heads)}, by the same seeds: {others} difference{'s' if others > 1 else ''}"


def _shared(table: Table) -> str:
    """The parameters in which all cells agree."""
    records = [cell.record.parameters for cell in table.cells]
    keys = dict.fromkeys(key for parameters in records for key in parameters)
    values = {key: {str(parameters.get(key)) for parameters in records} for key in keys}
    same = [f"{key}={next(iter(found))}" for key, found in values.items() if len(found) == 1 and key != "seed"]
    return f"<p>The same in all cells: {escape(', '.join(same))}.</p>" if same else ""


def _finished(table: Table, sheet: Sheet) -> Sheet:
    kept = [entries for row, entries in zip(table.rows, sheet.rows, strict=True) if row.state == "finished"]
    return replace(sheet, rows=tuple(kept))


def _failure(run: Run) -> str:
    name = run.record.name or run.record.fingerprint
    log = f"runs/{run.record.fingerprint}/{run.folder.log.name}" if run.folder else "where it was trained"
    cells = (name, run.state.value, _why(run), log)
    return f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in cells)}</tr>"


def _why(run: Run) -> str:
    if run.state is RunState.diverged and run.result and run.result.note:
        return run.result.note
    try:
        said = (run.folder.failure() or "") if run.folder and run.state is RunState.failed else ""
    except Damaged as error:
        said = str(error)
    return said.strip().rpartition("\n")[2] or "—"


def _runs(table: Table) -> list[Run]:
    return [run for cell in table.cells for run in cell.runs]


def _counted(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    shown = [f"{value} ({count} runs)" for value, count in values.most_common(MOST_VALUES)]
    return ", ".join(shown) + (f", and {len(values) - MOST_VALUES} more" if len(values) > MOST_VALUES else "")


def _term(name: str, text: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>"


def _list(sentences: Sequence[str] | Iterator[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _scrolling(sheet: Sheet, label: str) -> str:
    longest = max((cell_len(row[0].text) for row in sheet.rows), default=0)
    return _region(html.write(sheet), label, max(4, min(longest, MOST_OF_A_NAME)))


def _region(content: str, label: str, first: int = 0) -> str:
    """What is wider than a phone scrolls by itself, by keyboard, too; its first column has room for `first` letters."""
    attributes = f'role="region" aria-label="{escape(label)}" tabindex="0" style="--first: {first}"'
    return f'<div class="scroll" {attributes}>{content}</div>'
