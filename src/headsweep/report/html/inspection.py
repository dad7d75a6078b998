"""What was seen inside the heads of inspected runs: how alike they are, and what each looks at."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from headsweep.report.html.sections import Section
from headsweep.report.read.cells import Run
from headsweep.report.table.build import Table
from headsweep.tracking.inspection import Inspection, read_inspection
from headsweep.tracking.typed_files import Damaged

MOST_SHOWN = 6  # inspected runs whose pictures are in the page
_TERMS = {  # metric -> how it is called, factor, unit
    "ensemble_gain": ("gain over the mean head", 100, " points"),
    "gain_over_best": ("gain over the best head", 100, " points"),
    "disagreement": ("images on which two heads differ", 100, " %"),
    "kl": ("KL divergence of two heads", 1, " nats"),
    "cka": ("CKA of two heads' features", 1, ""),
}


def inside_heads(table: Table) -> Section | None:
    """The inspections of the runs' present weights; None if there is none."""
    found, damaged = [], ""
    for run in (run for cell in table.cells for run in cell.runs):
        try:
            if run.folder and (seen := read_inspection(run.folder.path)):
                found.append((run, seen))
        except Damaged as error:
            damaged += f"<p>{escape(str(error))}</p>"
    if not (found or damaged):
        return None
    shown = damaged + "".join(_one(run, seen) for run, seen in found[:MOST_SHOWN])
    more = len(found) - MOST_SHOWN
    rest = f"<p>And {more} more: <code>headsweep inspect RUN</code> shows them.</p>" if more > 0 else ""
    return Section("inside", "Inside the heads", shown + rest)


def _one(run: Run, seen: Inspection) -> str:
    metrics = seen.metrics
    terms = [
        f"<div><dt>{escape(title)}</dt><dd>{factor * metrics[name]:.4g}{unit}</dd></div>"
        for name, (title, factor, unit) in _TERMS.items()
        if name in metrics
    ]
    alone = ", ".join(f"{100 * top1:.2f}" for top1 in seen.heads)
    told = f"top-1 of each head alone: {alone} %; together {100 * metrics['top1']:.2f} %, on {seen.images} images"
    pictures = [
        _picture(path, f"{run.record.name}: {what}")
        for path, what in ((seen.diversity, "how alike its heads are"), (seen.attention, "what each head looks at"))
        if path
    ]
    return f"<h3>{escape(run.record.name)}</h3><p>{escape(told)}.</p><dl>{''.join(terms)}</dl>{''.join(pictures)}"


def _picture(path: Path, words: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    # As wide as its own text needs, not as a figure's column: 16 maps stand side by side.
    return f'<figure style="max-width: none"><img src="data:image/png;base64,{data}" alt="{escape(words)}"></figure>'
