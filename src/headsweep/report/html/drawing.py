"""Draw a figure as SVG and PDF files and as part of the page, byte for byte the same for the same runs."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from headsweep.report.html.styles import GREY, STYLES, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

INK, GRID, PAPER = "#1c2024", "#d9dde2", "#fefefe"
# In the page, every color is replaced by a variable of style.css, which has other values in dark mode.
COLORS = {
    INK: "currentColor",
    GRID: "var(--grid)",
    GREY: "var(--grey)",
    PAPER: "var(--page)",
    **{style.color: f"var(--series-{at})" for at, style in enumerate(STYLES, start=1)},
}
WIDTH = 4.4  # inches; text of 10 points then has 11 pixels on a phone
_LEGEND_ROW = 0.21  # inches
_RC: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "font.size": 10,
    "grid.color": GRID,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 6.5,
    "pdf.fonttype": 42,  # text remains selectable
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,  # labels may contain dollar signs
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
}


Value = tuple[float, float | None]  # a number and the half-width of its interval


@dataclass(frozen=True)
class Mark:
    """A point of a figure, in the units of its axes, and the number that it shows."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Figure:
    """One figure, before it is drawn."""

    name: str  # of its files
    title: str
    caption: str  # how to read it
    alt: str  # text alternative: the numbers that it shows
    draw: Callable[[Axes], None]
    height: float = 3.2  # inches, without the legend
    marks: Sequence[Mark] = ()  # in the order in which a keyboard reaches them


@dataclass(frozen=True)
class Drawing:
    """A drawn figure."""

    figure: Figure
    svg: str
    pdf: bytes
    places: Sequence[tuple[float, float]]  # of the figure's marks, in the units of the SVG

    def inline(self) -> str:
        """Return the SVG for the page: in its colors and font, with unique ids, `alt` and marks that can be pointed at.

        Screen readers get the text alternative and the marks in place of the drawing.
        """
        name = self.figure.name
        body = self.svg[self.svg.index("<svg") :]
        body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # would apply to the whole page
        body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
        body = re.sub("|".join(COLORS), lambda match: COLORS[match[0]], body)
        view = re.search(r'viewBox="[^"]*"', body)
        opening = (
            f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {view[0] if view else ""} role="group" '
            f'aria-labelledby="{name}-title" aria-describedby="{name}-alt"><title id="{name}-title">'
            f'{escape(self.figure.title)}</title><desc id="{name}-alt">{escape(self.figure.alt)}</desc>'
            '<g aria-hidden="true">'
        )
        body = re.sub(r"<svg[^>]*>", lambda _: opening, body, count=1)
        return body.replace("</svg>", f"</g>{self._marks()}</svg>")

    def _marks(self) -> str:
        return "".join(
            f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="7"><title>{escape(mark.text)}</title></circle>'
            for mark, (x, y) in zip(self.figure.marks, self.places, strict=True)
        )


def draw(figure: Figure) -> Drawing:
    """Draw with the same settings on every machine, independent of its matplotlibrc."""
    import matplotlib
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(), warnings.catch_warnings():
        # A browser has fonts for names in any script: the SVG has text, not glyphs.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC | {"svg.hashsalt": figure.name})  # type: ignore[arg-type]
        canvas = Canvas(figsize=(WIDTH, figure.height), layout="constrained")
        axes = canvas.add_subplot()
        figure.draw(axes)
        rows = _add_legend(canvas, axes)
        canvas.set_figheight(figure.height + _LEGEND_ROW * rows)
        svg, pdf = io.StringIO(), io.BytesIO()
        canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        canvas.savefig(pdf, format="pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})
        return Drawing(figure, svg.getvalue(), pdf.getvalue(), _places(canvas, axes, figure.marks))


def listed(marks: Sequence[Mark]) -> str:
    """Return the numbers of a figure as its text alternative."""
    return "; ".join(mark.text for mark in marks) + "."


def _places(canvas: Canvas, axes: Axes, marks: Sequence[Mark]) -> list[tuple[float, float]]:
    """Return where the marks of a drawn figure are in its SVG: in points, from the upper left corner."""
    if not marks:
        return []
    width, height = 72 * canvas.get_figwidth(), 72 * canvas.get_figheight()
    to_figure = axes.transData - canvas.transFigure
    shares = to_figure.transform([(mark.x, mark.y) for mark in marks])
    return [(float(width * x), float(height * (1 - y))) for x, y in shares]


def draw_points(
    axes: Axes, places: Sequence[float], values: Sequence[Value], style: Style, label: str, dash: str
) -> None:
    """Draw values with a bar where they have an interval; markers are hollow, so that none hides another."""
    means, bars = [mean for mean, _ in values], [half or 0.0 for _, half in values]
    look: dict[str, Any] = {"color": style.color, "marker": style.marker, "linestyle": dash, "label": label}
    look |= {"mfc": "none", "mew": 1.6, "capsize": 3, "elinewidth": 1.0}
    axes.errorbar(places, means, bars if any(bars) else None, **look)


def _add_legend(canvas: Canvas, axes: Axes) -> int:
    """Add the legend below the axes, series first; return its number of lines."""
    from matplotlib.container import Container

    known = list(zip(*axes.get_legend_handles_labels(), strict=True))
    entries = sorted(known, key=lambda entry: not isinstance(entry[0], Container))
    if not entries:
        return 0
    longest = max(len(label) for _, label in entries)
    rows = math.ceil(len(entries) / (1 if longest > 22 else 2 if longest > 12 else 3))
    canvas.legend(*zip(*entries, strict=True), loc="outside lower center", ncols=math.ceil(len(entries) / rows))
    return rows
