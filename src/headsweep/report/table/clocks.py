"""Speed and training time of cells: measured once a run, under whatever else the machine did at that time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headsweep.report.table.model import Note, Question, Row

CLOCKS = {"images_per_second": "images_per_second", "time": "train_seconds"}  # column -> cost
MOST_SPREAD = 0.2  # relative difference between the seeds of a cell up to which a column is shown by default

_WHAT = {
    "images_per_second": "Images/s is training throughput as measured",
    "time": "Minutes are training time as measured",
}


def unsteady(rows: Sequence[Row], column: str) -> tuple[float, float] | None:
    """Return the range over seeds of the cell whose seeds differ most, if they differ by more than MOST_SPREAD."""
    low, high = max(
        _ranges(rows, column), key=lambda both: both[1] / both[0] if both[0] > 0 else 1.0, default=(1.0, 1.0)
    )
    return (low, high) if high > (1 + MOST_SPREAD) * low > 0 else None


def footnotes(rows: Sequence[Row], question: Question) -> Iterator[Note]:
    """Explain the columns that are shown, and why the speed is not among the default ones."""
    for column, what in _WHAT.items():
        worst = unsteady(rows, column)
        doubt = ""
        if worst:
            low, high = worst
            size = 60 if column == "time" else 1
            doubt = (
                f" The seeds of one cell differ by a factor of {high / low:.1f} ({low / size:.3g} to {high / size:.3g})"
                ": these numbers measure the load of the machine, not the head."
            )
        if question.columns is None and column == "images_per_second" and worst:
            yield Note(f"Images/s is left out.{doubt} It is still in table.csv, and with --columns {column}.")
        elif question.shows(column):
            ranges = ", from the lowest to the highest where the seeds differ" * any(
                low < high for low, high in _ranges(rows, column)
            )
            yield Note(f"{what}{ranges}, including the effect of other load on the machine.{doubt}", (column,))


def _ranges(rows: Sequence[Row], column: str) -> list[tuple[float, float]]:
    return [row.ranges[CLOCKS[column]] for row in rows if CLOCKS[column] in row.ranges]
