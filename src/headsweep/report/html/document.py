"""Write a sweep as one self-contained page, and its figures as files.

report.html           the page; it loads no other file, which its content security policy enforces
figures/*.svg, *.pdf  its figures, for a paper
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from headsweep.report.formats.html import escape
from headsweep.report.html import quantities, sections
from headsweep.report.html.drawing import Drawing, Figure, draw
from headsweep.report.html.figures.by_heads import by_heads
from headsweep.report.html.figures.differences import differences
from headsweep.report.html.figures.differences_by_epoch import differences_by_epoch
from headsweep.report.html.figures.ensembles import ensembles
from headsweep.report.html.figures.learning_curves import learning_curves
from headsweep.report.html.figures.tradeoff import COSTS, tradeoff
from headsweep.report.html.figures.tuning import tuning
from headsweep.report.html.histories import read_histories
from headsweep.report.html.inspection import inspections
from headsweep.report.html.labels import quality_noun
from headsweep.report.html.origin import Origin
from headsweep.report.html.sections import Section
from headsweep.report.html.selection import Selection, select
from headsweep.report.html.verdict import verdict
from headsweep.report.table.model import Table
from headsweep.text import capitalized
from headsweep.tracking import atomic_files

PAGE, FIGURES = "report.html", "figures"
_POLICY = "default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
_NO_VALUE = "No finished run has a value to draw."
_NO_BASELINE = "No two cells can be compared."
_ONE_COST = "All cells have the same cost."


def write(table: Table, origin: Origin, made_by: str, folder: Path) -> int:
    """Write the page of a sweep to `folder`; return the number of its figures.

    Args:
        table: the comparison.
        origin: the commands and study of the sweep.
        made_by: the command that makes the page again.
        folder: where report.html and figures/ go; figures of an earlier page are removed.
    """
    selection, quality = select(table), capitalized(quality_noun(table))
    drawn = {theme: [draw(figure) for figure in figures] for theme, figures in _figures(table, selection).items()}
    drawings = [drawing for theme in drawn.values() for drawing in theme]
    _write_figures(drawings, folder / FIGURES)
    parts = [
        verdict(table),
        sections.warnings(table),
        sections.comparison(table),
        sections.figures("differences", "Differences from the baseline", drawn["differences"], _NO_BASELINE),
        sections.over_axes(table),
        sections.figures("accuracy", f"{quality} against heads", drawn["accuracy"], _NO_VALUE),
        sections.figures("learning", "Learning curves", drawn["learning"], "No run has accuracies of several epochs."),
        sections.figures("tuning", "Tuning", drawn["tuning"], "No arm has two settings with a number.")
        if table.arms
        else None,
        sections.figures("ensembles", "Heads alone and together", drawn["ensembles"], "No cell has several heads."),
        sections.figures(
            "tradeoffs", f"{quality} against cost", drawn["tradeoffs"], _ONE_COST if selection.rows else _NO_VALUE
        ),
        sections.costs(table, drawn["costs"]),
        inspections(table),
        sections.failures(table),
        sections.study(table, origin),
        sections.environment(table),
        sections.notes(table, made_by),
    ]
    atomic_files.write_text(folder / PAGE, page(origin.name, [part for part in parts if part]))
    return len(drawings)


def page(name: str, parts: Sequence[Section]) -> str:
    """Return the document."""
    links = "".join(f'<li><a href="#{part.name}">{escape(part.title)}</a></li>' for part in parts)
    bodies = "\n".join(
        f'<section id="{part.name}"><h2>{escape(part.title)}</h2>\n{part.body}\n</section>' for part in parts
    )
    style, script = (
        (files("headsweep.report.html") / file).read_text(encoding="utf-8") for file in ("style.css", "script.js")
    )
    policy = _POLICY.format(digest=b64encode(hashlib.sha256(script.encode()).digest()).decode())
    title = escape(name)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · headsweep</title>
<style>
{style}</style>
</head>
<body>
<header><p>headsweep report</p><h1>{title}</h1>
<nav aria-label="Sections"><ul>{links}</ul></nav></header>
<main>
{bodies}
</main>
<script>{script}</script>
</body>
</html>
"""


def _figures(table: Table, selection: Selection) -> dict[str, list[Figure]]:
    """Return theme -> its figures."""
    return {
        "differences": _drawn(differences(table, selection)),
        "accuracy": _drawn(by_heads(table, selection, quantities.accuracy(table))),
        "tradeoffs": _drawn(*(tradeoff(table, selection, cost) for cost in COSTS)),
        "learning": by_epoch(table, selection),
        "tuning": tuning(table, selection),
        "ensembles": _drawn(ensembles(table, selection)),
        "costs": _drawn(*(by_heads(table, selection, cost) for cost in quantities.costs(table))),
    }


def by_epoch(table: Table, selection: Selection) -> list[Figure]:
    """Return the curves of each number of heads, and beside them the differences from the baseline."""
    histories = read_histories(table, selection)
    differences = differences_by_epoch(selection, histories)
    curves = learning_curves(selection, histories)
    return [figure for heads, found in curves.items() for figure in (*found, *_drawn(differences.get(heads)))]


def _drawn(*figures: Figure | None) -> list[Figure]:
    return [figure for figure in figures if figure]


def _write_figures(drawings: Sequence[Drawing], folder: Path) -> None:
    written = set()
    for drawing in drawings:
        svg, pdf = (folder / f"{drawing.figure.name}.{ending}" for ending in ("svg", "pdf"))
        atomic_files.write_text(svg, drawing.svg)
        atomic_files.write_with(pdf, lambda file, content=drawing.pdf: file.write(content))  # type: ignore[misc]
        written |= {svg, pdf}
    for stale in {*folder.glob("*.svg"), *folder.glob("*.pdf")} - written:
        stale.unlink()
