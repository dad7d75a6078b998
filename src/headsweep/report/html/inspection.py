"""The section about inspected runs: how similar their heads are, and what each attends to."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from headsweep.report.html.sections import Section
from headsweep.report.read.cells import Run
from headsweep.report.table.model import Table
from headsweep.tracking.inspection import Inspection, read_inspection
from headsweep.tracking.typed_files import Damaged

MOST_SHOWN = 6  # inspected runs in the page
_TERMS = {  # metric -> label, factor, unit
    "ensemble_gain": ("gain over the mean of the heads", 100, " points"),
    "gain_over_best": ("gain over the best head", 100, " points"),
    "disagreement": ("images with different predictions of two heads", 100, " %"),
    "kl": ("KL divergence between two heads", 1, " nats"),
    "cka": ("CKA between the features of two heads", 1, ""),
}


def inspections(table: Table) -> Section | None:
    """Return the inspections of the runs' current weights; None if there is none."""
    found, damaged = [], ""
    for run in (run for cell in table.cells for run in cell.runs):
        try:
            if run.folder and (inspection := read_inspection(run.folder.path)):
                found.append((run, inspection))
        except Damaged as error:
            damaged += f"<p>{escape(str(error))}</p>"
    if not (found or damaged):
        return None
    shown = damaged + "".join(_one(run, inspection) for run, inspection in found[:MOST_SHOWN])
    more = len(found) - MOST_SHOWN
    rest = f"<p>And {more} more, see <code>headsweep inspect RUN</code>.</p>" if more > 0 else ""
    return Section("inspection", "Inspection of the heads", shown + rest)


def _one(run: Run, inspection: Inspection) -> str:
    metrics = inspection.metrics
    terms = [
        f"<div><dt>{escape(title)}</dt><dd>{factor * metrics[name]:.4g}{unit}</dd></div>"
        for name, (title, factor, unit) in _TERMS.items()
        if name in metrics
    ]
    alone = ", ".join(f"{100 * top1:.2f}" for top1 in inspection.heads)
    top1 = f"top-1 of each head alone: {alone} %; together {100 * metrics['top1']:.2f} %, on {inspection.images} images"
    pictures = [
        _picture(path, f"{run.record.name}: {what}")
        for path, what in ((inspection.diversity, "similarity of its heads"), (inspection.attention, "attention maps"))
        if path
    ]
    return f"<h3>{escape(run.record.name)}</h3><p>{escape(top1)}.</p><dl>{''.join(terms)}</dl>{''.join(pictures)}"


def _picture(path: Path, alt: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    # Not limited to the width of a figure's column: 16 maps are side by side.
    return f'<figure style="max-width: none"><img src="data:image/png;base64,{data}" alt="{escape(alt)}"></figure>'
