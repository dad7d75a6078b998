"""Every benchmark runs, on sizes that say nothing of speed, and what it writes can be compared."""

import json
import math
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from headsweep.config import PROJECT_ROOT
from headsweep.errors import UserError
from headsweep.sweep.measuring import Unmeasured

FOLDER = PROJECT_ROOT / "benchmarks"
SMALL = ["model.width=32", "model.depth=1", "model.attention_heads=1", "schedule.warmup='0 epochs'", "heads=2"]
STEP = ["--model", "cct_2_3x2", "--image-size", "16", "--batch", "4", "--size", "32", "--rounds", "2", "--threads", "1"]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a script of benchmarks/ as it is found where it is run; the number of threads stays what it was."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before, threads = set(sys.modules), torch.get_num_threads()
    yield lambda name: __import__(name)
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").parent in (FOLDER, PROJECT_ROOT / "tests/heads"):
            del sys.modules[name]


def rows(path: Path, benchmark: str) -> dict[str, dict[str, Any]]:
    """The rows of a file of results by name, whose format is checked."""
    content = json.loads(path.read_text())
    assert content["benchmark"] == benchmark and content["command"] and content["date"] and content["settings"]
    assert {"processor", "cores", "gpu", "threads", "load", "torch", "python"} == set(content["machine"])
    for row in content["rows"]:
        assert len({len(samples) for samples in row["samples"].values()}) == 1
        assert all(value > 0 for samples in row["samples"].values() for value in samples)
    return {row["name"]: row for row in content["rows"]}


def test_heads(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    words = [
        "--head",
        "seqattn",
        "--heads",
        "1",
        "2",
        "--batch",
        "2",
        "--tokens",
        "4",
        "--width",
        "32",
        "--rounds",
        "2",
    ]
    benchmark("heads").main([*words, "--json", str(path)])
    found = rows(path, "heads")
    settings = json.loads(path.read_text())["settings"]
    assert settings["batch"] == 2 and settings["heads"] == [1, 2] and not {"json", "rounds"} & set(settings)
    assert list(found) == ["A/A", "seqattn K=1", "seqattn K=2"]
    assert list(found["seqattn K=2"]["samples"]) == ["loop", "stacked"]


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("packing", "--seconds -1", "--seconds: '-1': want a number above 0"),
        ("sweep", "--fresh 0", "--fresh: '0': want a whole number of at least 1"),
        ("sweep", "--slots 0", "--slots: '0': want a whole number of at least 1"),
        ("sweep", "--slots 3 --fresh 3", "--fresh 3: want more than --slots 3"),
        ("sweep", "--fresh 10", "at most 9"),
        ("tracking", "--epochs 0", "--epochs: '0': want a whole number of at least 1"),
        ("tracking", "--rounds 0", "--rounds: '0': want a whole number of at least 1"),
        ("report", "--runs 0", "--runs: '0': want a whole number of at least 1"),
        ("report", "--runs abc", "--runs: 'abc': want a whole number of at least 1"),
        ("report", "--commands nope", "--commands: 'nope': unknown; known: table, last3, report"),
        ("streaming", "--model cct_14_7x2_223", "--model: 'cct_14_7x2_223': unknown to timm"),
        ("streaming", "--images 3", "--images 3: want at least --round 1024"),
        ("streaming", "--round 100", "--round: '100': want a multiple of 64"),
        ("data", "--images 64", "--images: '64': want a multiple of 256"),
        ("heads", "--width 3", "--width: '3': want a multiple of 32"),
        ("fidelity", "--upstream /nope", "--upstream: /nope: no models/cct.py in it"),
        ("fidelity", "--official /nope", "--official: /nope: no src/cct.py in it"),
        ("gpu", "--tiny --minutes nan", "--minutes: 'nan': want a number above 0"),
        ("compare", "a b --tolerance nan", "--tolerance: 'nan': want a number of at least 0"),
        ("compare", "a b --tolerance -0.1", "--tolerance: '-0.1': want a number of at least 0"),
        ("step", "--cells seqpool1 seqpool", "--cells: 'seqpool': want a head and how many of it"),
        ("step", "--cells seqattn0", "--cells: 'seqattn0': want a head and how many of it"),
        ("step", "--cells nope1", "--cells: 'nope1': want a head and how many of it"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    benchmark: Any, capsys: pytest.CaptureFixture[str], script: str, words: str, said: str
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        benchmark(script).main(words.split())
    out, err = capsys.readouterr()
    assert said in err.splitlines()[-1] and not out


def test_step_composes_all_cells_before_it_calibrates(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="nope"):
        benchmark("step").main([*STEP, "--model", "nope"])
    assert not capsys.readouterr().out


def test_report_asks_first_whether_a_database_answers(benchmark: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^--uri sqlite:///{tmp_path}/no/x.db: .*; want that of a database"):
        benchmark("report").main(["--runs", "3", "--uri", f"sqlite:///{tmp_path}/no/x.db"])


def test_the_gpu_s_folder_must_be_one_that_can_be_made(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert benchmark("gpu").main(["--tiny", "--folder", str(tmp_path / "file" / "x")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"--folder {tmp_path / 'file' / 'x'}: ")


def test_step(benchmark: Any, tmp_path: Path) -> None:
    path = tmp_path / "step.json"
    cells = ["--cells", "seqpool1", "ga2", "--sides", "plain", "off"]
    benchmark("step").main([*STEP, *cells, "--json", str(path)])
    found = rows(path, "step")
    assert list(found) == ["product", "copy", "A/A", "seqpool1", "ga2", "heads"]
    assert list(found["ga2"]["samples"]) == ["plain", "off"] and len(found["ga2"]["samples"]["off"]) == 2
    assert list(found["heads"]["samples"]) == ["seqpool1", "ga2"]


@pytest.fixture
def deterministic() -> Any:
    """As a run of ours leaves a process with a GPU."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_a_plain_step_is_free_to_choose_kernels_and_ours_asks_for_those_of_a_run(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, asked = benchmark("step"), []
    monkeypatch.setattr(step, "as_in_a_run", asked.append)
    run = benchmark("composed").compose([*SMALL, "batch_size=4"])
    run.dataset.num_classes = 10
    bench = SimpleNamespace(device=torch.device("cpu"))
    step.ours("off", run, bench)()
    assert asked == [bench.device] and torch.are_deterministic_algorithms_enabled()
    step.plain(run, bench.device, False)()
    assert asked == [bench.device] and not torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("deterministic")
def test_e2e(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, e2e, strict = tmp_path / "e2e.json", benchmark("e2e"), set()
    objective = e2e.objective  # of the plain path

    def watched(*given: Any) -> Any:
        strict.add(torch.are_deterministic_algorithms_enabled())
        return objective(*given)

    monkeypatch.setattr(e2e, "objective", watched)
    e2e.main(["--seeds", "1", "--epochs", "1", "--threads", "1", "--json", str(path), *SMALL])
    assert strict == {False}, "it is upstream's"
    found = rows(path, "e2e")
    assert found["A/A"]["accuracy"]["ours"] == found["A/A"]["accuracy"]["ours again"]
    assert 0 < found["plain / ours"]["accuracy"]["plain"][0] < 1


def test_the_plain_step_is_ours(benchmark: Any) -> None:
    """From the same weights, without what is drawn at random, both sides of `step` and `e2e` compute the same."""
    run = benchmark("composed").compose([*SMALL, "head=ga", "model.attention_dropout=0", "model.drop_path=0"])
    from headsweep.models.build import model_of

    images = torch.randn(3, 1, 16, 16)
    plain, ours = benchmark("plain").PlainModel(run), model_of(run)
    torch.testing.assert_close(plain(images), ours(images, per_head=True), rtol=1e-4, atol=1e-4)


def test_flops_are_those_of_the_loop(benchmark: Any) -> None:
    """CCT-7/3x1 at 32x32, forward and backward: MFU is quoted on them, whatever algebra saves."""
    compose, loop_flops = benchmark("composed").compose, benchmark("roofline").loop_flops
    for words, billions in ((["head=seqpool"], 7.076), (["head=seqattn", "heads=8"], 7.506)):
        run = compose(["model=cct_7_3x1", "dataset=cifar100", *words])
        assert loop_flops(run) == pytest.approx(billions * 1e9, rel=1e-3)


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
    assert benchmark("targets").main([str(tmp_path)]) == 0
    lines = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    assert ["ga K=8, loop / stacked", ">= 4", "5", "yes"] in lines
    assert ["seqattn K=8, loop / stacked", ">= 8", "-", "open"] in lines


def test_targets_of_a_broken_file_are_open_and_it_is_named(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results(tmp_path / "heads.json", "heads", [10.0, 10.0], [2.0, 2.0])
    (tmp_path / "step.json").write_text('{"benchmark": "st')
    assert benchmark("targets").main([str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert [line.rpartition("|")[2].strip() for line in out.splitlines()] == ["met", "open", "yes", *["open"] * 3]
    (line,) = err.splitlines()
    assert f"{tmp_path / 'step.json'}: " in line


@pytest.mark.parametrize("words", [["--bogus"], ["absent"], [__file__]])
def test_targets_are_of_a_folder(benchmark: Any, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        benchmark("targets").main(words)
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
    targets = benchmark("targets")
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


class Speeds:
    """Stands in for what measures: 100 images/s a run, until there are too many runs, or too little time."""

    def __init__(self, fit: int, times: int) -> None:
        self.fit, self.times = fit, times

    def images_per_second(self, count: int, threads: int, request: Any) -> float:
        self.times -= 1
        if self.times < 0:
            raise KeyboardInterrupt
        if count > self.fit:
            raise Unmeasured("out of memory")
        return 100.0 * count


def test_packing_that_is_cut_short_leaves_what_it_has_seen(benchmark: Any, tmp_path: Path) -> None:
    packing, path = benchmark("packing"), tmp_path / "packing.json"
    with pytest.raises(KeyboardInterrupt):
        packing.measure(packing.Results("packing", Namespace(json=path, most=3)), Speeds(fit=4, times=4), 3, 1, 1)
    assert rows(path, "packing")["together"]["samples"] == {"1 run": [100.0], "2 runs": [200.0]}


def test_packing_that_is_cut_short_before_its_first_round_leaves_a_whole_file(benchmark: Any, tmp_path: Path) -> None:
    packing, path = benchmark("packing"), tmp_path / "packing.json"
    with pytest.raises(KeyboardInterrupt):
        packing.measure(packing.Results("packing", Namespace(json=path, most=3)), Speeds(fit=4, times=2), 3, 1, 1)
    assert [row["name"] for row in benchmark("reading").read(path)["rows"]] == ["A/A"]


def test_packing_leaves_out_what_does_not_fit(benchmark: Any, tmp_path: Path) -> None:
    packing, path = benchmark("packing"), tmp_path / "packing.json"
    packing.measure(packing.Results("packing", Namespace(json=path, most=4)), Speeds(fit=2, times=99), 4, 2, 1)
    found = rows(path, "packing")["together"]
    assert found["samples"] == {"1 run": [100.0] * 2, "2 runs": [200.0] * 2}
    assert found["limit"] == "3 runs: out of memory"


def test_packing_fills_the_compile_cache(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packing, path, counts = benchmark("packing"), tmp_path / "packing.json", []
    monkeypatch.setattr(packing, "Processes", lambda: None)
    measures = SimpleNamespace(images_per_second=lambda count, threads, request: counts.append(count))
    monkeypatch.setattr(packing, "Throughput", lambda *given, **named: measures)
    packing.main(["--device", "cpu", "--compile-only", "--json", str(path), *SMALL])
    assert counts == [1] and not path.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_benchmarks_say_so(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark("gpu").main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no GPU" in line and "TINY=1" in line


def test_the_gpu_s_parts_are_tried_and_what_fails_or_hangs_is_named(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = benchmark("gpu")
    scripts = {"good": "import sys; open(sys.argv[2], 'w').write('{}')", "bad": "raise SystemExit(3)"}
    scripts["hangs"] = "import time; time.sleep(100)"
    for name, text in scripts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(gpu, "BENCHMARKS", tmp_path)
    monkeypatch.setattr(
        gpu, "tiny", lambda: [gpu.Part(name, [f"{name}.py"], 60 if name != "hangs" else 1) for name in scripts]
    )
    assert gpu.main(["--tiny", "--folder", str(tmp_path / "results")]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "not done, or not to the end: bad, hangs"
    assert (tmp_path / "results" / "good.json").exists()


def test_both_sets_of_parts_are_the_same(benchmark: Any) -> None:
    """What is tried where there is no GPU is what is measured where there is one, by scripts that exist."""
    gpu = benchmark("gpu")
    assert [part.name for part in gpu.full()] == [part.name for part in gpu.tiny()]
    for part in (*gpu.full(), *gpu.tiny()):
        assert all((FOLDER / command.split()[0]).is_file() for command in part.commands if "packing" not in command)


def test_the_scripts_take_the_words_of_the_parts_and_each_option_once(benchmark: Any) -> None:
    gpu = benchmark("gpu")
    for part in (*gpu.full(), *gpu.tiny()):
        for command in part.commands:
            script, *words = shlex.split(command)
            options = [word for word in words if word.startswith("--") and word != "--head"]
            assert len(options) == len(set(options)), command
            if script != "roofline.py":  # which has none of its own
                benchmark(script.removesuffix(".py")).arguments(words)


def test_packing_on_a_gpu_tries_up_to_four_runs(benchmark: Any) -> None:
    (part,) = (part for part in benchmark("gpu").full() if part.name == "packing")
    assert benchmark("packing").arguments(shlex.split(part.commands[0])[1:]).most == 4
