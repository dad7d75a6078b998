"""RESULTS.md is made from the records, and two records can be compared."""

import difflib
import json
from pathlib import Path
from typing import Any

import pytest

from headsweep.errors import UserError

MACHINE = {"processor": "x", "cores": 2, "gpu": None, "torch": "2", "load": 0.1}


def record(benchmark: str, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    content = {"benchmark": benchmark, "command": "c", "date": "2026-11-25", "commit": "0", "machine": MACHINE}
    return {**content, "settings": {"batch": 64}, "rows": rows, **more}


def heads(loop: list[float], stacked: list[float], **more: Any) -> dict[str, Any]:
    pair = {"name": "A/A", "unit": "ms", "samples": {"loop": [10.0, 10.0], "loop again": [10.1, 9.9]}}
    row = {"name": "ga K=8", "unit": "ms", "samples": {"loop": loop, "stacked": stacked}}
    return record("heads", [pair, row], **more)


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def cells(benchmark: Any, folder: Path) -> dict[str, list[str]]:
    """The rows of RESULTS.md by their first cell."""
    results = benchmark("results")
    lines = results.page(results.read_all(folder)).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {name: rest for name, *rest in rows}


def test_results_are_made_from_the_records(benchmark: Any) -> None:
    results = benchmark("results")
    found, expected = results.RESULTS.read_text(), results.page(results.read_all(results.RECORDS))
    diff = difflib.unified_diff(found.splitlines(True), expected.splitlines(True), "RESULTS.md", "from the records")
    assert found == expected, f"{''.join(diff)}\naccept it with python benchmarks/results.py"


def test_the_newest_record_with_a_figure_is_compared_with_its_target(benchmark: Any, tmp_path: Path) -> None:
    write(tmp_path / "2026-11-24_heads_x.json", heads([10.0], [1.0], date="2026-11-24"))
    write(tmp_path / "2026-11-25_heads_x.json", heads([10.0, 10.0], [2.0, 4.0], source="transcribed"))
    found = cells(benchmark, tmp_path)
    link = "[2026-11-25](records/2026-11-25_heads_x.json) *"
    assert found["heads: ga K=8, loop / stacked"] == [">= 4", "3.75 (2.50 to 5.00)", "no", link]
    assert found["heads: seqattn K=8, loop / stacked"] == [">= 8", "not measured", "", ""]


def test_a_row_without_samples_has_a_summary(benchmark: Any, tmp_path: Path) -> None:
    row = {"name": "ga K=8", "unit": "ms", "summary": {"loop / stacked": [7.5, 7.04, 7.98]}}
    write(tmp_path / "a_heads_x.json", record("heads", [row]))
    assert cells(benchmark, tmp_path)["heads: ga K=8, loop / stacked"][1:3] == ["7.50 (7.04 to 7.98)", "yes"]


def test_every_figure_of_a_gpu_comes_from_the_rows_that_benchmarks_write(benchmark: Any, tmp_path: Path) -> None:
    """A step of 8 ms, heads that cost 0.1 ms, augmentation of 0.2 ms, and the most images/s with four packed runs."""
    step = {"seqpool1": 8.0, "seqattn1": 8.1, "ga1": 8.1, "seqattn8": 8.1, "ga8": 8.1}
    rows = {
        "step": [
            {"name": "seqpool1", "images": 256, "samples": {"reference": [80.0], "step": [8.0]}},
            {"name": "heads", "samples": {cell: [ms] for cell, ms in step.items()}, "peak_gib": dict.fromkeys(step, 2)},
        ],
        "data": [{"name": "headsweep / timm", "images": 2560, "samples": {"timm": [9.0], "headsweep": [2.0]}}],
        "upstream": [
            {"name": "reference / headsweep", "images_per_second": {"reference": [5_000.0], "headsweep": [30_000.0]}}
        ],
        "streaming": [
            {"name": "headsweep / timm, RandAugment", "samples": {"timm": [30.0], "headsweep": [20.0]}},
            {"name": "supplied / consumed", "samples": {"consumed": [30.0], "supplied": [10.0]}},
        ],
        "attention": [
            {"name": f"n={count}", "samples": {"torch": [2.0], "triton": [1.0]}} for count in (64, 256)
        ],
        "packing": [{"name": "concurrent runs", "samples": {"1 run": [3e4], "3 runs": [4e4], "4 runs": [5e4]}}],
    }  # fmt: skip
    for name, found in rows.items():
        write(tmp_path / f"d_{name}_gpu.json", record(name, found, machine={**MACHINE, "gpu": "H100"}))
    of_gpu = {name: rest[1:3] for name, rest in cells(benchmark, tmp_path).items() if name.startswith("GPU")}
    assert list(of_gpu.values()) == [
        ["32,000 images/s", "yes"],
        ["32,000 images/s", "yes"],
        *[["1.01", "yes"]] * 2,
        *[["1", "yes"]] * 4,
        *[["2", ""]] * 2,
        ["2.5 %", "yes"],
        ["30,000 images/s", "yes"],
        ["6", "yes"],
        ["1.5", "yes"],
        ["3", "yes"],
        ["40,000 images/s", "yes"],
        ["8.33 min", "yes"],
    ]


def test_a_figure_never_mixes_machines(benchmark: Any, tmp_path: Path) -> None:
    data = {"name": "headsweep / timm", "images": 2560, "samples": {"headsweep": [2.0]}}
    step = {"name": "seqpool1", "images": 256, "samples": {"step": [8.0]}}
    for name, row, gpu in (("data", data, "H100"), ("step", step, "H200")):
        write(tmp_path / f"d_{name}_gpu.json", record(name, [row], machine={**MACHINE, "gpu": gpu}))
    assert cells(benchmark, tmp_path)["GPU: augmentation, share of a step"][1] == "not measured"


def test_compare_finds_what_is_worse(benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On a machine half as fast, the stacked head has become slower relative to the loop."""
    compare = benchmark("results").main
    before = str(write(tmp_path / "a.json", heads([10.0, 10.2], [2.0, 2.0])))
    slower = str(write(tmp_path / "b.json", heads([20.0, 20.4], [4.0, 4.0])))
    worse = str(write(tmp_path / "c.json", heads([20.0, 20.4], [5.0, 5.0])))
    assert compare(["--compare", before, slower]) == 0
    assert "  ga K=8: stacked" in capsys.readouterr().out
    assert compare(["--compare", before, worse]) == 1
    assert "* ga K=8: stacked                          0.80 (0.79 to 0.81)  WORSE" in capsys.readouterr().out
    assert compare(["--compare", worse, before]) == 0
    assert compare(["--compare", before, worse, "--tolerance", "0.3"]) == 0


@pytest.mark.parametrize(("unit", "change"), [("s", 0.5), ("share", 2.0)])
def test_compare_depends_on_whether_more_is_better(benchmark: Any, tmp_path: Path, unit: str, change: float) -> None:
    results = benchmark("results")
    before, after = (
        results.Record(**record("sweep", [{"name": "x", "unit": unit, "samples": {"x": [value]}}])) for value in (1, 2)
    )
    by = results.change(results.sides(before)["x", "x"], results.sides(after)["x", "x"])
    assert by.median == change


def test_compare_names_what_differs(benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(tmp_path / "a.json", heads([10.0], [2.0]))
    machine = {**MACHINE, "torch": "3", "load": 9.0}
    two = write(tmp_path / "b.json", heads([10.0], [2.0], machine=machine, settings={"batch": 2}))
    assert benchmark("results").main(["--compare", str(one), str(two)]) == 0
    assert capsys.readouterr().out.splitlines()[1:3] == ["  torch: 2, 3", "  batch: 64, 2"]


@pytest.mark.parametrize("text", [None, "", "3", '{"benchmark": "hea', '{"benchmark": "heads"}'])
def test_compare_names_a_file_that_is_no_record(benchmark: Any, tmp_path: Path, text: str | None) -> None:
    one, two = write(tmp_path / "a.json", heads([10.0], [2.0])), tmp_path / "b.json"
    if text is not None:
        two.write_text(text)
    with pytest.raises(UserError, match=rf"^{two}: expected a record"):
        benchmark("results").main(["--compare", str(one), str(two)])


def test_compare_needs_a_row_in_common(benchmark: Any, tmp_path: Path) -> None:
    one = write(tmp_path / "a.json", heads([10.0], [2.0]))
    two = write(tmp_path / "b.json", record("step", heads([10.0], [2.0])["rows"]))
    with pytest.raises(UserError, match="expected records of one benchmark"):
        benchmark("results").main(["--compare", str(one), str(two)])
