"""The sections of the page: text, tables and places for figures, each with its heading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

from headsweep.report.formats import html
from headsweep.report.formats.html import escape
from headsweep.report.html.drawing import Drawing
from headsweep.report.html.labels import metric_noun
from headsweep.report.html.origin import Origin
from headsweep.report.read.cells import MISSING, VARIANT, Run
from headsweep.report.table import clocks, stored_tokens
from headsweep.report.table.clocks import unsteady
from headsweep.report.table.columns import ABSENT, COLUMNS
from headsweep.report.table.inconsistencies import code_version
from headsweep.report.table.layout import Sheet, flat, note_text
from headsweep.report.table.model import Question, Table
from headsweep.report.table.over import below
from headsweep.text import plural, shortened
from headsweep.tracking.run_record import RunState
from headsweep.tracking.typed_files import Damaged

COSTS = (
    "parameters",
    "head_parameters",
    "flops",
    "head_flops",
    "images_per_second",
    "time",
    *stored_tokens.COLUMNS,
    "peak_memory",
)
LAST = (*COSTS, "head_share")
MOST_FAILURES = 100
MOST_OF_A_NAME = 16  # characters of a head in one line
MOST_ROWS = 24  # of a table that does not scroll vertically
MOST_VALUES = 6  # of one key of the environment


@dataclass(frozen=True)
class Section:
    """One section of the page."""

    name: str  # its anchor
    title: str
    body: str  # HTML


def study(table: Table, origin: Origin) -> Section:
    """Return what was planned: the text of the study, commands, axes with their values, seeds and baseline."""
    runs = _runs(table)
    axes = {"head": [cell.head for cell in table.cells], "heads": [str(cell.heads) for cell in table.cells]}
    for axis in table.axes:
        axes[axis] = [MISSING if (value := cell.value(axis)) is None else str(value) for cell in table.cells]
    listed = "".join(_term(axis, ", ".join(dict.fromkeys(values))) for axis, values in axes.items())
    counts = sorted({len(cell.runs) for cell in table.cells})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    finished = sum(run.finished for run in runs)
    facts = _term("seeds per cell", seeds)
    facts += _term("runs", f"{len(runs)} in {plural(len(table.cells), 'cell')}, {finished} finished")
    facts += _term("baseline", _baseline(table))
    text = f"<pre>{'<br>'.join(map(escape, origin.study.splitlines()))}</pre>" if origin.study else ""
    commands = "".join(f"<p><code>{escape(command)}</code></p>" for command in origin.commands)
    return Section("study", "Study", f"{text}{commands}<dl>{listed}{facts}</dl>{_shared(table)}")


def warnings(table: Table) -> Section | None:
    """Return what limits the numbers; None if nothing does."""
    notes = [*map(note_text, table.warnings), *_gaps(table)]
    return Section("warnings", "Warnings", _list(notes)) if notes else None


def comparison(table: Table) -> Section:
    """Return the table with what names the rows first, then accuracies and differences, and costs last.

    A narrow screen shows the first of these without scrolling, and keeps the first two columns in view.
    """
    sheet = flat(table)
    first = (table.metric, "difference", "verdict", "p", "difference_images")

    def place(at: int) -> int:
        name = sheet.headings[at].name
        if name in COLUMNS:
            return first.index(name) if name in first else len(first) + (name in LAST)
        if name in table.tuned:
            return len(first)
        varies = len({row[at].text for row in sheet.rows}) > 1
        return (-3 if name == VARIANT else -2) if varies else -1

    order = sorted(range(len(sheet.headings)), key=place)
    headings = tuple(sheet.headings[at] for at in order)
    rows = tuple(tuple(row[at] for at in order) for row in sheet.rows)
    return Section("table", "Table", _scrolling(Sheet(headings, rows, footnotes=()), "Comparison of the cells"))


def over_axes(table: Table) -> Section | None:
    """Return the tables below the table: the effect of the number of heads, and ranks over data sets."""
    found = list(below(table))
    bodies = [_scrolling(replace(sheet, footnotes=()), title) + _list(sheet.notes()) for title, sheet in found]
    if len(found) > 1:
        bodies = [f"<h3>{escape(title)}</h3>{body}" for (title, _), body in zip(found, bodies, strict=True)]
    heading = found[0][0] if len(found) == 1 else "Over heads and data sets"
    return Section("over-axes", heading, "".join(bodies)) if found else None


def figures(name: str, title: str, drawings: Sequence[Drawing], otherwise: str) -> Section:
    """Return figures side by side as far as they fit; the sentence `otherwise` where there are none."""
    shown = "".join(
        f"<figure>{drawing.inline()}<figcaption><strong>{escape(drawing.figure.title)}.</strong> "
        f"{escape(drawing.figure.caption)}</figcaption></figure>"
        for drawing in drawings
    )
    return Section(name, title, f'<div class="figures">{shown}</div>' if drawings else f"<p>{escape(otherwise)}</p>")


def costs(table: Table, drawings: Sequence[Drawing]) -> Section:
    """Return training time and memory, as figures and as a table with all costs."""
    shown = figures("costs", "Time and memory", drawings, "No run has a training time.")
    names = [name for name in COSTS if any(entry != ABSENT for entry in COLUMNS[name].entries(table.rows)[1])]
    sheet = _finished(table, replace(flat(table, names), footnotes=()))
    found = [*clocks.footnotes(table.rows, Question(columns=tuple(names)))]
    found += [stored_tokens.MEANING] * (not set(names).isdisjoint(stored_tokens.COLUMNS))
    notes = "".join(f"<p>{escape(note.text)}</p>" for note in found)
    drawn = " Training time is not drawn." * bool(unsteady(table.rows, "time"))
    memory = f"<p>Memory is the median over seeds.{drawn}</p>"
    return replace(shown, body=shown.body + _scrolling(sheet, "Costs of the cells") + notes + memory)


def failures(table: Table) -> Section | None:
    """Return the runs without a result, with the reasons; None if all have one."""
    missing = [run for run in _runs(table) if not run.finished and not run.screened_out]
    if not missing:
        return None
    rows = "".join(map(_failure, missing[:MOST_FAILURES]))
    more = len(missing) - MOST_FAILURES
    rest = f"<p>And {more} more, see <code>headsweep status</code>.</p>" if more > 0 else ""
    heading = "<tr>" + "".join(f'<th scope="col">{title}</th>' for title in ("run", "state", "reason", "log")) + "</tr>"
    table_ = f'<table class="list"><thead>{heading}</thead><tbody>{rows}</tbody></table>'
    return Section("failures", "Runs without a result", _region(table_, "Runs without a result", len(missing)) + rest)


def environment(table: Table) -> Section:
    """Return the code, data and machines of the runs."""
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
    """Return the footnotes of the table that are not warnings, and the command that made the page."""
    sentences = [note_text(note) for note in table.footnotes if note not in table.warnings]
    made = f"<p>Made by <code>{escape(made_by)}</code>. The figures are also in <code>figures/</code>.</p>"
    return Section("notes", "Notes", _list(sentences) + made)


def _gaps(table: Table) -> Iterator[str]:
    """Yield what is missing for a comparison or for intervals."""
    finished = [row for row in table.rows if row.state == RunState.finished.label]
    if not finished:
        yield "NO FINISHED RUN: there is nothing to compare yet."
    what, of = metric_noun(table), f"of {plural(len(finished), 'finished row')}"
    if without := sum(row.compared is None for row in finished):
        yield f"NO {what.upper()} in {without} {of}: their runs did not measure it, or it is NaN."
    if single := sum(row.compared is not None and row.compared.n == 1 for row in finished):
        yield f"ONE SEED in {single} {of}: no confidence interval, and no head is claimed to be better."


def _baseline(table: Table) -> str:
    compared = sum(row.difference is not None for row in table.rows)
    if not compared:
        return "none: no two cells can be compared"
    return f"{table.baseline} ({plural(compared, 'difference')}, paired by seed)"


def _shared(table: Table) -> str:
    """Return the parameters in which all cells agree."""
    records = [cell.record.parameters for cell in table.cells]
    keys = dict.fromkeys(key for parameters in records for key in parameters)
    values = {key: {str(parameters.get(key)) for parameters in records} for key in keys}
    same = [f"{key}={next(iter(found))}" for key, found in values.items() if len(found) == 1 and key != "seed"]
    return f"<p>Shared by all cells: {escape(', '.join(same))}.</p>" if same else ""


def _finished(table: Table, sheet: Sheet) -> Sheet:
    kept = [
        entries for row, entries in zip(table.by_cell, sheet.rows, strict=True) if row.state == RunState.finished.label
    ]
    return replace(sheet, rows=tuple(kept))


def _failure(run: Run) -> str:
    name = run.record.name or run.record.fingerprint
    log = f"runs/{run.record.fingerprint}/{run.folder.log.name}" if run.folder else "in its output folder"
    cells = (name, run.state.label, _reason(run), log)
    return f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in cells)}</tr>"


def _reason(run: Run) -> str:
    if run.state is RunState.diverged and run.result and run.result.note:
        return run.result.note
    try:
        failure = (run.folder.failure() or "") if run.folder and run.state is RunState.failed else ""
    except Damaged as error:
        failure = str(error)
    return failure.strip().rpartition("\n")[2] or MISSING


def _runs(table: Table) -> list[Run]:
    return [run for cell in table.cells for run in cell.runs]


def _counted(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return shortened([f"{value} ({plural(count, 'run')})" for value, count in values.most_common()], MOST_VALUES)


def _term(name: str, text: str) -> str:
    return f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>"


def _list(sentences: Sequence[str] | Iterator[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"


def _scrolling(sheet: Sheet, label: str) -> str:
    longest = max((cell_len(row[0].text) for row in sheet.rows), default=0)
    return _region(html.write(sheet), label, len(sheet.rows), max(4, min(longest, MOST_OF_A_NAME)))


def _region(content: str, label: str, rows: int, first: int = 0) -> str:
    """Return a table that scrolls by itself, also by keyboard, with room for `first` characters in its first column."""
    attributes = f'role="region" aria-label="{escape(label)}" tabindex="0" style="--first: {first}"'
    return f'<div class="scroll{" long" if rows > MOST_ROWS else ""}" {attributes}>{content}</div>'
