"""What stored tokens cost, beside what the same runs would cost with the backbone in each step."""

from csv import DictReader
from dataclasses import replace

from made_cells import made_cell

from headsweep.report.formats import csv
from headsweep.report.html.sections import costs
from headsweep.report.read.cells import Cell
from headsweep.report.table.build import compare
from headsweep.report.table.layout import flat
from headsweep.report.table.model import Question
from headsweep.tracking.run_record import RunState


def probes(head: str, live: float = 3600.0, tokens: str = "a") -> Cell:
    clock = {"train_seconds": 60.0, "token_seconds": 600.0, "token_bytes": 18e9, "live_seconds": live}
    cell = made_cell(head, [0.8, 0.81, 0.82], clocks=[clock] * 3)
    return Cell(
        tuple(
            replace(it, result=replace(it.result, environment={"device": "cpu", "tokens": tokens})) for it in cell.runs
        )
    )


def test_columns_of_probes():
    columns = ("head_parameters", "time", "time_live", "token_time", "token_size")
    table = compare([probes("gap"), made_cell("ga", [0.8])], Question(columns=columns))
    sheet = flat(table, columns)
    assert [entry.text for entry in sheet.rows[0][2:]] == ["—", "1.0", "61.0", "10.0", "18.00"]
    assert [entry.text for entry in sheet.rows[1][2:]] == ["—"] * 5
    assert "Minutes live: training time with the backbone in each step" in str(sheet)


def test_a_row_without_a_finished_run_has_no_size_of_tokens():
    """The record of a planned run has the bytes of one image."""
    (run,) = made_cell("ga", [RunState.failed]).runs
    failed = replace(run, record=replace(run.record, cost={"parameters": 100, "token_bytes": 1024}))
    table = compare([probes("gap"), Cell((failed,))], Question(columns=("parameters", "token_size")))
    assert [[entry.text for entry in row[-2:]] for row in flat(table, ("parameters", "token_size")).rows] == [
        ["—", "18.00"],
        ["100", "—"],
    ]
    values = [row["token_bytes"] for row in DictReader(csv.write(table).splitlines())]
    assert values == ["18000000000.0", ""]


def test_the_costs_of_a_report_have_those_columns_where_there_are_probes():
    body = costs(compare([probes("gap"), made_cell("ga", [0.8])], Question()), []).body
    assert "minutes live" in body and "token GB" in body and "Token minutes and token GB" in body
    assert "live" not in costs(compare([made_cell("ga", [0.8])], Question()), []).body


def test_a_footnote_has_the_cost_of_the_whole_grid_with_and_without_stored_tokens():
    notes = str(compare([probes("gap"), probes("ga")], Question()).footnotes)
    assert "computed once, in 10 min (18.0 GB), for 6 runs, whose heads trained for 6 min in all" in notes
    assert "with the backbone in each step they would take about 6 h" in notes
    two = str(compare([probes("gap"), probes("ga", tokens="b")], Question()).footnotes)
    assert "computed once, in 20 min (36.0 GB), for 6 runs" in two


def test_a_table_without_probes_is_as_before():
    table = compare([made_cell("gap", [0.8]), made_cell("ga", [0.9])], Question())
    assert "okens" not in str(flat(table)) and "token" not in csv.write(table)
    assert "token_bytes" in csv.write(compare([probes("gap")], Question())).splitlines()[0]
