"""`headsweep.results`: the table of a sweep, as rows, as a pandas.DataFrame and as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

from headsweep.api.errors import user_errors
from headsweep.errors import UserError
from headsweep.folders import default_output
from headsweep.report.formats import csv, html, markdown
from headsweep.report.request import Location, Request
from headsweep.report.table.model import Row, Table
from headsweep.status.find import find_sweep
from headsweep.tracking.trackers import TRACKERS

if TYPE_CHECKING:
    import pandas

_OPTION = re.compile(r"^--(columns|metric|margin|baseline|tune) ")
_ARGUMENTS = {"--mark": "mark=True", "--tune none": "tune='none'"}  # for options that messages advise to add
_STYLE = "<style>.headsweep .number {text-align: right} .headsweep .footnotes {font-size: smaller}</style>"


@dataclass(frozen=True, repr=False)
class Results(Sequence[Row]):
    """The rows of a comparison table, one for each cell (and state of its runs).

    Attributes:
        request: what was asked for; `request.command()` prints the same table.
        table: the whole table, with its footnotes.
    """

    request: Request
    table: Table

    def __len__(self) -> int:
        return len(self.table.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Row, ...]: ...
    def __getitem__(self, index: int | slice) -> Row | tuple[Row, ...]:
        return self.table.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.table.rows)

    def to_frame(self) -> pandas.DataFrame:
        """Return the columns of table.csv in full precision: accuracies in [0, 1], NaN where there is no number."""
        import pandas

        return pandas.DataFrame([csv.record(self.table, row) for row in self])

    def __repr__(self) -> str:
        return markdown.write(self.request.sheet(self.table))

    def _repr_html_(self) -> str:
        """As notebooks show it."""
        return f'<div class="headsweep">{_STYLE}\n{html.write(self.request.sheet(self.table))}</div>'


def results(
    source: str = "latest",
    *,
    output: str | Path | None = None,
    columns: str | None = None,
    baseline: str | Sequence[str] = (),
    metric: str = "top1",
    tune: str | Sequence[str] = (),
    margin: float | None = None,
    mark: bool = False,
) -> Results:
    """Compare the runs of a sweep, as `headsweep table` does.

    Args:
        source: the name of a sweep or its beginning, "latest", or an MLflow filter: "params.`head.name` = 'ga'".
        output: output folder of the runs, `paths.output`.
        columns: columns to show, e.g. "parameters,top1,difference,p"; `to_frame` always has all.
        baseline: cell to compare with, e.g. "head=seqpool"; by default the baseline variant of the study, or without
            variants the head of the first row.
        metric: metric to compare, e.g. "val_top1".
        tune: keys whose value is chosen for each row on validation images.
        margin: smallest difference that matters, in percentage points (log loss: nats): adds a verdict to each row.
        mark: compare runs with inconsistent code, precisions, durations, data, seeds or tuning, with a warning.

    Raises:
        UserError: there is no such sweep, its runs are inconsistent, or an option names what does not exist.
    """
    for name, value in (("source", source), ("columns", columns or ""), ("metric", metric)):
        if not isinstance(value, str):
            raise UserError(f"{name}={value!r}: expected a text")
    place = default_output() if output is None else Path(output).expanduser()
    with user_errors(), _named_arguments():
        request = Request(source, columns, None, None, _words(baseline), metric, _words(tune), None, mark, margin)
        if not request.is_filter:
            name = find_sweep(source, place).name
            request = Request(name, columns, None, None, _words(baseline), metric, _words(tune), None, mark, margin)
        return Results(request, request.table(Location(place, TRACKERS["mlflow"](None, "headsweep", place))))


@contextmanager
def _named_arguments() -> Iterator[None]:
    """Name the argument where a message names the option of the command: `columns=it` for `--columns it`."""
    try:
        yield
    except UserError as error:
        text = _OPTION.sub(r"\1=", str(error))
        for option, argument in _ARGUMENTS.items():
            text = text.replace(option, argument)
        if type(error) is not UserError or text == str(error):
            raise
        raise UserError(text) from error


def _words(given: str | Sequence[str]) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
