"""Contrast of the page in light and dark mode (WCAG 2.2, 1.4.3 and 1.4.11)."""

import re
from importlib.resources import files

import pytest

from headsweep.report.html.drawing import COLORS, GRID, PAPER
from headsweep.report.html.selection import MOST
from headsweep.report.html.styles import STYLES

STYLE = (files("headsweep.report.html") / "style.css").read_text()
THEMES = [
    dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
]


def luminance(color: str) -> float:
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", THEMES, ids=["light", "dark"])
def test_text_has_4_5_to_1_and_graphics_3_to_1(theme):
    assert THEMES[0].keys() == THEMES[1].keys()
    for text, background in [
        ("ink", "page"),
        ("soft", "page"),
        ("link", "page"),
        ("ink", "raised"),
        ("alarm", "alarm-page"),
    ]:
        assert contrast(theme[text], theme[background]) >= 4.5, (text, background)
    for name in ["grey", *(f"series-{at}" for at in range(1, MOST + 1))]:
        assert contrast(theme[name], theme["page"]) >= 3, name


def test_the_files_of_the_figures_have_the_contrast_of_the_page():
    for color in COLORS:
        if color not in (GRID, PAPER):  # grid lines and the background
            assert contrast(color, PAPER) >= 3


def test_no_two_series_share_a_color_or_a_marker_and_each_color_is_one_of_the_page():
    assert len(STYLES) == MOST
    assert len({style.color for style in STYLES}) == len({style.marker for style in STYLES}) == MOST
    assert {f"var(--series-{at})" for at in range(1, MOST + 1)} <= set(COLORS.values())
    assert all(name in THEMES[0] for value in COLORS.values() for name in re.findall(r"var\(--([\w-]+)\)", value))
