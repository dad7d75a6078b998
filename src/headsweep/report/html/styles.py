"""How lines look: a color, a marker and a dash each, so that they can be distinguished without color."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """The look of one line in all figures."""

    color: str  # replaced in the page by one of its own colors, see `drawing.COLORS`
    marker: str
    dash: str


STYLES = tuple(
    Style(color, marker, dash)
    for color, marker, dash in zip(
        ("#0072b2", "#c44e00", "#007a5a", "#a8437f", "#8a6400", "#5b4fc0", "#2a7f9e", "#b3261e"),
        "os^DvPX*",
        ("-", "--", "-.", ":", "-", "--", "-.", ":"),
        strict=True,
    )
)
GREY = "#70767d"
OTHERS = Style(GREY, "o", "-")
