"""Speed and training time follow the load of the machine: their spread is shown, and beyond 20 % they are hidden."""

from __future__ import annotations

import pytest
from made_cells import made_cell
from rendering import as_csv, as_markdown

from headsweep.report.formats import latex, markdown
from headsweep.report.html import quantities
from headsweep.report.table.build import compare
from headsweep.report.table.columns import EN_DASH
from headsweep.report.table.layout import flat
from headsweep.report.table.model import Question, Table


def measured(*speeds: float, columns: tuple[str, ...] | None = None) -> Table:
    """Two cells; the first has these images/s, and minutes to match."""
    clocks = [{"images_per_second": speed, "train_seconds": 36_000 / speed} for speed in speeds]
    steady = [{"images_per_second": 300.0, "train_seconds": 120.0}] * len(speeds)
    values = [0.8 + at / 1000 for at in range(len(speeds))]
    cells = [made_cell("seqpool", values, clocks=clocks), made_cell("ga", values, clocks=steady)]
    return compare(cells, Question(columns=columns))


def test_seeds_that_differ_are_shown_as_a_range():
    table = measured(300, 310, 330)
    text = as_markdown(table)
    assert f"| 300{EN_DASH}330 |" in text and "| 300 |" in text
    assert (
        "as measured, from the lowest to the highest where the seeds differ, including the effect of other load" in text
    )
    assert "300--330" in latex.write(flat(table))
    first = as_csv(table)[0]
    assert (first["images_per_second"], first["images_per_second_min"]) == ("310", "300")
    assert float(first["train_seconds_max"]) == pytest.approx(120.0)


def test_equal_seeds_and_differences_below_the_last_digit_are_one_number():
    text = as_markdown(measured(300, 300.2, 300.4))
    assert EN_DASH not in text
    assert "lowest to the highest" not in as_markdown(measured(300, 300, 300))


def test_a_speed_that_follows_the_load_is_not_shown_by_default():
    table = measured(371, 120, 33)
    text = as_markdown(table)
    assert "images/s" not in text.splitlines()[0]
    assert (
        "Images/s is left out. The seeds of one cell differ by a factor of 11.2 (33 to 371): these numbers measure the "
        "load of the machine, not the head. It is still in table.csv, and with --columns images_per_second." in text
    )
    assert "time" not in [quantity.name for quantity in quantities.costs(table)]
    assert "time" in [quantity.name for quantity in quantities.costs(measured(300, 310, 330))]


def test_it_is_shown_if_asked_for_with_the_same_sentence():
    columns = ("images_per_second", "time")
    text = markdown.write(flat(measured(371, 120, 33, columns=columns), columns))
    assert f"| 33{EN_DASH}371 | 1.6{EN_DASH}18.2 |" in text
    assert text.count("differ by a factor of 11.2") == 2 and "left out" not in text


def test_twenty_percent_is_still_shown():
    assert "images/s" in as_markdown(measured(100, 110, 120)).splitlines()[0]
    assert "images/s" not in as_markdown(measured(100, 110, 121)).splitlines()[0]
