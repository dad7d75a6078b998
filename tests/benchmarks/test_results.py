"""What the benchmarks write is compared and held against targets; what cannot be is named."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from benchmark_files import rows


def results(path: Path, benchmark: str, loop: list[float], stacked: list[float], **more: Any) -> str:
    pair = {"name": "A/A", "unit": "ms", "samples": {"loop": [10.0, 10.0], "loop again": [10.1, 9.9]}}
    rows = [pair, {"name": "ga K=8", "unit": "ms", "samples": {"loop": loop, "stacked": stacked}}]
    content = {"benchmark": benchmark, "date": "d", "machine": {"processor": "x", "torch": "2"}, "rows": rows}
    path.write_text(json.dumps({**content, "settings": {"batch": 64}, **more}))
    return str(path)


def test_compare_finds_what_is_worse(benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a machine half as fast, on which the stacked head has lost a fifth beside the loop."""
    compare: ModuleType = benchmark("compare")
    before = results(tmp_path / "a.json", "heads", [10.0, 10.2], [2.0, 2.0])
    slower = results(tmp_path / "b.json", "heads", [20.0, 20.4], [4.0, 4.0])
    worse = results(tmp_path / "c.json", "heads", [20.0, 20.4], [5.0, 5.0])
    assert compare.main([before, slower]) == 0
    assert "  ga K=8: stacked" in capsys.readouterr().out
    assert compare.main([before, worse]) == 1
    assert "* ga K=8: stacked                  0.80 (0.79 to 0.81)  WORSE" in capsys.readouterr().out
    assert compare.main([worse, before]) == 0
    assert compare.main([before, worse, "--tolerance", "0.3"]) == 0


@pytest.mark.parametrize(
    ("benchmark_", "more", "reason"),
    [
        ("step", {}, "one is of heads, the other of step"),
        ("heads", {"machine": {"processor": "y"}}, "they are of different machines (processor: x, y)"),
        ("heads", {"settings": {"batch": 2, "head": ["ga"]}}, "different settings (batch: 64, 2; head: None, ['ga'])"),
    ],
)
def test_compare_refuses_what_is_not_the_same(
    benchmark: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    benchmark_: str,
    more: dict[str, Any],
    reason: str,
) -> None:
    compare = benchmark("compare")
    one = results(tmp_path / "a.json", "heads", [10.0], [2.0])
    two = results(tmp_path / "b.json", benchmark_, [10.0], [2.0], **more)
    with pytest.raises(SystemExit, match=r"^2$"):
        compare.main([one, two])
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert compare.main([one, two, "--anyway"]) == 0


def test_compare_takes_another_torch_and_says_so(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = results(tmp_path / "a.json", "heads", [10.0], [2.0])
    two = results(tmp_path / "b.json", "heads", [10.0], [2.0], machine={"processor": "x", "torch": "3"})
    assert benchmark("compare").main([one, two]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("; torch: 2, 3")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda content: content.pop("date"), "date: got None, want a str"),
        (lambda content: content.update(machine=None), "machine: got None, want a dict"),
        (lambda content: content.update(rows={}), "rows: got {}, want a list"),
        (lambda content: content["rows"][1].pop("name"), "a row without name or unit"),
        (lambda content: content["rows"].append(3), "a row without name or unit: 3"),
        (lambda content: content["rows"][1].update(samples={}), "row ga K=8: got {}, want samples by side"),
        (lambda content: content["rows"][0]["samples"].pop("loop"), "row A/A: got {'loop again': [10.1, 9.9]}, want"),
        (lambda content: content["rows"][1]["samples"].update(loop=[]), "row ga K=8, loop: got [], want"),
        (lambda content: content["rows"][1]["samples"].update(loop=[1, 0]), "row ga K=8, loop: got [1, 0], want"),
        (lambda content: content["rows"][1]["samples"].update(loop=[math.nan]), "row ga K=8, loop: got [nan], want"),
        (lambda content: content["rows"][1].update(name="ga K=4"), "no row that both have"),
    ],
)
def test_compare_names_what_is_wrong_with_a_file(
    benchmark: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], object],
    reason: str,
) -> None:
    one, two = (results(tmp_path / name, "heads", [10.0], [2.0]) for name in ("a.json", "b.json"))
    content = json.loads(Path(two).read_text())
    change(content)
    Path(two).write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"^2$"):
        benchmark("compare").main([one, two])
    (line,) = capsys.readouterr().err.splitlines()
    assert two in line and reason in line


@pytest.mark.parametrize("text", [None, "", "3", '{"benchmark": "hea'])
def test_compare_names_a_file_that_is_none(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit, match=r"^2$"):
        benchmark("compare").main([str(path), str(path)])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compare.py: {path}: ")


def test_compare_takes_the_rounds_that_all_sides_of_a_row_have(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As they are left by what is interrupted in its second round."""
    whole = results(tmp_path / "a.json", "heads", [10.0], [2.0])
    cut = results(tmp_path / "b.json", "heads", [10.0, 99.0], [2.0])
    assert benchmark("compare").main([whole, cut]) == 0
    assert "ga K=8: stacked                  1.00 (1.00 to 1.00)" in capsys.readouterr().out


def noise(benchmark: Any, path: Path) -> float:
    """That compare.py sees in a file."""
    found: float = benchmark("compare").spread(benchmark("reading").read(path))
    return found


def test_sweep_s_noise_is_found(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run trains for a second; the second time the local launcher takes twice as long beside it."""
    sweep, path, took = benchmark("sweep"), tmp_path / "sweep.json", iter([1.5, 3.0, *[9.0] * 3, 2.0, 1.5])
    names = [f"{head}{count}-x" for head, count in sweep.CELLS]

    def run(words: list[str]) -> Any:
        mine, seconds = names if "-m" in words else [f"{words[0][5:]}{words[1][6:]}-x"], next(took)
        ended = {name: seconds * (1 + names.index(name)) for name in mine}
        return sweep.Command(0.0, max(ended.values()), 0.0, ended)

    monkeypatch.setattr(sweep, "run", run)
    monkeypatch.setattr(sweep, "trainings", lambda output: [(name, 1.0) for name in names])
    sweep.main(["--slots", "1", "--fresh", "3", "--json", str(path)])
    found = rows(path, "sweep")
    assert list(found) == ["local", "local / basic", "local / fresh", "A/A", "efficiency"]
    assert found["A/A"]["samples"] == {"local": [0.5] * 8, "local again": [1.0] * 8}
    assert found["local / fresh"]["samples"] == {"local": [0.5] * 2, "fresh": [8.0] * 2}
    assert noise(benchmark, path) == 2


def test_tracking_s_noise_is_found(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking, path, took = benchmark("tracking"), tmp_path / "tracking.json", iter([1.0, 3.0, 2.0])
    ways = dict.fromkeys(["spool", "spool again", "projection"], lambda epoch, metrics: None)
    monkeypatch.setattr(tracking, "all_ways", lambda scratch, stack: ways)
    monkeypatch.setattr(tracking, "clock", lambda step, device: (5.0, step() or 1.0))
    monkeypatch.setattr(tracking, "run", lambda words: None)
    monkeypatch.setattr(tracking, "trainings", lambda output: [("x", next(took))])
    tracking.main(["--rounds", "2", "--json", str(path)])
    found = rows(path, "tracking")
    assert list(found) == ["A/A", "heads=1", "heads=8", "training"]
    assert found["heads=8"]["samples"] == {"spool": [5.0] * 2, "projection": [5.0] * 2}
    assert found["training"]["samples"] == {"none": [1.0], "mlflow": [3.0]}
    assert noise(benchmark, path) == 2


def test_report_s_noise_is_found(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report, path, clock = benchmark("report"), tmp_path / "report.json", iter([0, 1, 1, 3, 3, 6, 6, 9])
    monkeypatch.setattr(report, "fill", lambda *given: None)
    monkeypatch.setattr(report, "subprocess", SimpleNamespace(run=lambda *given, **named: None, DEVNULL=None))
    monkeypatch.setattr(report, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    report.main(["--runs", "7", "--commands", "report", "--json", str(path)])
    assert rows(path, "report")["sqlite 7 report"]["samples"] == {"seconds": [2, 3]}
    assert noise(benchmark, path) == 1.5


def test_targets_say_what_is_open(benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results(tmp_path / "heads.json", "heads", [10.0, 10.0], [2.0, 2.0])
    assert benchmark("results").main([str(tmp_path)]) == 0
    lines = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    assert ["ga K=8, loop / stacked", ">= 4", "5", "yes"] in lines
    assert ["seqattn K=8, loop / stacked", ">= 8", "-", "open"] in lines


def test_targets_of_a_broken_file_are_open_and_it_is_named(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results(tmp_path / "heads.json", "heads", [10.0, 10.0], [2.0, 2.0])
    (tmp_path / "step.json").write_text('{"benchmark": "st')
    assert benchmark("results").main([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert [line.rpartition("|")[2].strip() for line in out.splitlines()] == ["met", "open", "yes", *["open"] * 3]
    (line,) = err.splitlines()
    assert f"{tmp_path / 'step.json'}: " in line


@pytest.mark.parametrize("words", [["--bogus"], ["absent"], [__file__]])
def test_targets_are_of_a_folder(benchmark: Any, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        benchmark("results").main(words)
    out, err = capsys.readouterr()
    assert words[0] in err.splitlines()[-1] and not out


def test_every_target_of_a_gpu_has_a_figure(benchmark: Any) -> None:
    """A step of 8 ms, heads that cost 0.1 ms, an augmentation of 0.2 ms, packed runs of which four are fastest."""
    cells = {"seqpool1": 8.0, "seqattn1": 8.1, "ga1": 8.1, "seqattn8": 8.1, "ga8": 8.1}
    gib = dict.fromkeys(cells, 2.0)
    files = {
        "step": [
            {"name": "seqpool1", "images": 256, "samples": {"plain": [80.0], "step": [8.0]}},
            {"name": "heads", "samples": {cell: [ms] for cell, ms in cells.items()}, "peak_gib": gib},
        ],
        "data": [{"name": "ours / timm", "images": 2560, "samples": {"timm": [9.0], "ours": [2.0]}}],
        "upstream": [{"name": "plain / ours", "images_per_second": {"plain": [5_000.0], "ours": [30_000.0]}}],
        "streaming": [
            {"name": "ours / timm, RandAugment", "samples": {"timm": [30.0], "ours": [20.0]}},
            {"name": "fed / consumed", "samples": {"consumed": [30.0], "fed": [10.0]}},
        ],
        "packing": [{"name": "together", "samples": {"1 run": [3e4], "3 runs": [4e4], "4 runs": [5e4]}}],
    }
    targets = benchmark("results")
    got = [target.line({name: {"rows": rows} for name, rows in files.items()})[2:] for target in targets.GPU]
    assert got == [
        ("32,000 images/s", "yes"),
        ("32,000 images/s", "yes"),
        *[("1.012", "yes")] * 2,
        *[("1", "yes")] * 4,
        ("2.5 %", "yes"),
        ("30,000 images/s", "yes"),
        ("6", "yes"),
        ("1.5", "yes"),
        ("3", "yes"),
        ("40,000 images/s", "yes"),
        ("8.333 min", "yes"),
    ]
