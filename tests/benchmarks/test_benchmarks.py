"""The benchmarks run, with sizes too small to measure speed."""

import shlex
from argparse import Namespace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from composing import compose_run
from headsweep.autotune.measurement import Unmeasured
from headsweep.config import PROJECT_ROOT
from headsweep.tracking.metrics_log import MetricsLog

SMALL = ["model.width=32", "model.depth=1", "model.attention_heads=1", "schedule.warmup='0 epochs'", "heads=2"]


def test_a_record_has_machine_settings_and_samples(benchmark: Any, tmp_path: Path) -> None:
    measuring = benchmark("measuring")
    args = Namespace(records=tmp_path, rounds=3, batch=64, threads=1, uri="x")
    for _ in range(2):
        bench = measuring.Benchmark("heads", args, mps=True)
        bench.measure("x", {"a": lambda: None, "b": lambda: None}, images=2)
    record = bench.record
    assert [bench.path.name, f"{record.name()}.json"] == [f"{record.name()}_2.json", min(tmp_path.iterdir()).name]
    assert record.name().startswith(f"{record.date[:10]}_heads_") and record.name().endswith("cores-mps")
    assert benchmark("results").read(bench.path) == record
    assert record.settings == {"batch": 64, "threads": 1}
    assert {"processor", "cores", "gpu", "mps", "threads", "load", "torch", "python"} == set(record.machine)
    (row,) = record.rows
    assert [len(samples) for samples in (*row["samples"].values(), *row["cpu_samples"].values())] == [3] * 4


def test_sides_take_turns_after_one_round_to_warm_up(benchmark: Any) -> None:
    order, clock = [], count()
    sides = {name: lambda name=name: order.append(name) for name in "abc"}
    times = benchmark("measuring").interleaved(sides, 2, torch.device("cpu"), lambda: next(clock))
    assert "".join(order) == "abcbcacab"
    assert times.cpu == {name: [1000.0] * 2 for name in "abc"}


@pytest.mark.slow
def test_heads(benchmark: Any, tmp_path: Path, rows: Any) -> None:
    sizes = ["--heads", "1", "2", "--batch", "2", "--tokens", "4", "--width", "32", "--rounds", "1"]
    benchmark("heads").main(["--head", "seqattn", *sizes, "--records", str(tmp_path)])
    assert list(rows()) == ["A/A", "seqattn K=1", "seqattn K=2"]
    assert list(rows()["seqattn K=2"]["samples"]) == ["loop", "stacked"]


@pytest.mark.slow
def test_step(benchmark: Any, tmp_path: Path, rows: Any) -> None:
    sizes = ["--model", "cct_2_3x2", "--image-size", "16", "--batch", "4", "--size", "32", "--rounds", "1"]
    cells = ["--cells", "seqpool1", "ga2", "--sides", "reference", "off"]
    benchmark("step").main([*sizes, *cells, "--threads", "1", "--records", str(tmp_path)])
    assert list(rows()) == ["product", "copy", "A/A", "seqpool1", "ga2", "heads"]
    assert list(rows()["ga2"]["samples"]) == ["reference", "off"]
    assert list(rows()["heads"]["samples"]) == ["seqpool1", "ga2"]


def test_step_composes_all_cells_before_it_measures(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Exception, match="nope"):
        benchmark("step").main(["--cells", "seqpool1", "nope1"])
    assert not capsys.readouterr().out


@pytest.fixture
def deterministic() -> Any:
    """Requires deterministic algorithms, as a run does on a GPU."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("deterministic")
def test_the_reference_may_choose_kernels_and_headsweep_asks_for_those_of_a_run(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, asked, device = benchmark("step"), [], torch.device("cpu")
    monkeypatch.setattr(step, "determinism_of_a_run", asked.append)
    run = benchmark("measuring").compose([*SMALL, "batch_size=4"])
    run.dataset.num_classes = 10
    step.headsweep(run, device)()
    assert asked == [device] and torch.are_deterministic_algorithms_enabled()
    step.reference(run, device, autocast=False)()
    assert asked == [device] and not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
@pytest.mark.usefixtures("deterministic")
def test_e2e(benchmark: Any, tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    e2e, strict = benchmark("e2e"), set()
    objective = e2e.objective  # of the reference

    def watched(*given: Any) -> Any:
        strict.add(torch.are_deterministic_algorithms_enabled())
        return objective(*given)

    monkeypatch.setattr(e2e, "objective", watched)
    short = ["--seeds", "1", "--epochs", "1", "--threads", "1", "--records", str(tmp_path)]
    e2e.main([*short, *SMALL, "debug.train_images=128", "debug.eval_images=64"])
    assert strict == {False}
    accuracy = rows()["A/A"]["accuracy"]
    assert accuracy["headsweep"] == accuracy["headsweep again"]
    assert 0 < rows()["reference / headsweep"]["accuracy"]["reference"][0] < 1


def test_the_reference_computes_the_same_logits(benchmark: Any) -> None:
    """From the same weights, without dropout, as headsweep in `step` and `e2e`."""
    run = benchmark("measuring").compose([*SMALL, "head=ga", "model.attention_dropout=0", "model.drop_path=0"])
    from headsweep.models.build import model_of

    images = torch.randn(3, 1, 16, 16)
    reference, model = benchmark("reference").reference_model(run), model_of(run)
    torch.testing.assert_close(reference(images), model(images, per_head=True), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_flops_are_those_of_the_loop(benchmark: Any) -> None:
    """CCT-7/3x1 at 32x32, forward and backward: MFU refers to them, whatever a reformulation saves."""
    loop_flops = benchmark("roofline").loop_flops
    for words, billions in ((["head=seqpool"], 7.076), (["head=seqattn", "heads=8"], 7.506)):
        run = compose_run("model=cct_7_3x1", "dataset=cifar100", *words)
        assert loop_flops(run) == pytest.approx(billions * 1e9, rel=1e-3)


class FakeThroughput:
    """Measures 100 images/s per run, up to `fit` runs, and is interrupted after `times` measurements."""

    def __init__(self, fit: int, times: int) -> None:
        self.fit, self.times = fit, times

    def images_per_second(self, count: int, threads: int, request: Any) -> float:
        self.times -= 1
        if self.times < 0:
            raise KeyboardInterrupt
        if count > self.fit:
            raise Unmeasured("out of memory")
        return 100.0 * count


@pytest.mark.parametrize(
    ("times", "expected"), [(2, {}), (4, {"concurrent runs": {"1 run": [100.0], "2 runs": [200.0]}})]
)
def test_an_interrupted_benchmark_keeps_its_rows(
    benchmark: Any, tmp_path: Path, rows: Any, times: int, expected: dict[str, Any]
) -> None:
    bench = benchmark("measuring").Benchmark("packing", Namespace(records=tmp_path, most=3, rounds=1, threads=1))
    with pytest.raises(KeyboardInterrupt):
        benchmark("packing").measure(bench, FakeThroughput(fit=4, times=times))
    found = {name: row["samples"] for name, row in rows().items()}
    assert found == {"A/A": {"1 run": [100.0], "1 run again": [100.0]}, **expected}


def test_packing_leaves_out_what_does_not_fit(benchmark: Any, tmp_path: Path, rows: Any) -> None:
    bench = benchmark("measuring").Benchmark("packing", Namespace(records=tmp_path, most=4, rounds=2, threads=1))
    benchmark("packing").measure(bench, FakeThroughput(fit=2, times=99))
    row = rows()["concurrent runs"]
    assert row["samples"] == {"1 run": [100.0] * 2, "2 runs": [200.0] * 2}
    assert row["limit"] == "3 runs: out of memory"


def test_packing_fills_the_compile_cache(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packing, counts = benchmark("packing"), []
    monkeypatch.setattr(packing, "Processes", lambda: None)
    throughput = SimpleNamespace(images_per_second=lambda count, threads, request: counts.append(count))
    monkeypatch.setattr(packing, "Throughput", lambda *given, **named: throughput)
    packing.main(["--device", "cpu", "--compile-only", "--records", str(tmp_path), *SMALL])
    assert counts == [1] and not list(tmp_path.iterdir())


def test_sweep_compares_runs_of_the_same_cell(
    benchmark: Any, tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run trains for a second; the second time the local launcher has twice the overhead."""
    sweep, seconds = benchmark("sweep"), iter([1.5, 3.0, *[9.0] * 3, 2.0, 1.5])
    names = [f"{head}{count}-x" for head, count in sweep.CELLS]

    def run(words: list[str]) -> Any:
        trained, each = names if "-m" in words else [f"{words[0][5:]}{words[1][6:]}-x"], next(seconds)
        ended = {name: each * (1 + names.index(name)) for name in trained}
        return sweep.Command(0.0, max(ended.values()), 0.0, ended)

    monkeypatch.setattr(sweep, "SLOTS", 1)
    monkeypatch.setattr(sweep, "run", run)
    monkeypatch.setattr(sweep, "trainings", lambda output: [(name, 1.0) for name in names])
    sweep.main(["--fresh", "3", "--records", str(tmp_path)])
    assert list(rows()) == ["local", "local / basic", "local / fresh", "A/A", "efficiency"]
    assert rows()["A/A"]["samples"] == {"local": [0.5] * 8, "local again": [1.0] * 8}
    assert rows()["local / fresh"]["samples"] == {"local": [0.5] * 2, "fresh": [8.0] * 2}


def test_tracking(benchmark: Any, tmp_path: Path, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking, seconds = benchmark("tracking"), iter([1.0, 3.0, 2.0])
    logs = dict.fromkeys(["metrics log", "metrics log again", "projection"], lambda epoch, metrics: None)
    monkeypatch.setattr(tracking, "all_logs", lambda scratch, stack: logs)
    monkeypatch.setattr(tracking, "run", lambda words: None)
    monkeypatch.setattr(tracking, "trainings", lambda output: [("x", next(seconds))])
    tracking.main(["--rounds", "2", "--records", str(tmp_path)])
    assert list(rows()) == ["A/A", "heads=1", "heads=8", "training"]
    assert list(rows()["heads=8"]["samples"]) == ["metrics log", "projection"]
    assert rows()["training"]["samples"] == {"none": [1.0], "mlflow": [3.0]}


@pytest.mark.parametrize("heads", [1, 8])
def test_tracking_logs_what_a_run_may_log(benchmark: Any, tmp_path: Path, heads: int) -> None:
    tracking, log = benchmark("tracking"), MetricsLog(tmp_path / "metrics.jsonl")
    tracking.one_epoch(tracking.logged(log), heads)()
    assert len(log.entries()[0].metrics) == {1: 4, 8: 12}[heads]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_benchmarks_name_what_to_do(benchmark: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark("gpu").main([]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "make bench-gpu: expected a GPU, found none; make bench-gpu TINY=1 tries every part on the CPU"


def test_parts_that_fail_or_hang_are_named(
    benchmark: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = benchmark("gpu")
    scripts = {"good": f"open({str(tmp_path / 'done')!r}, 'w')", "bad": "raise SystemExit(3)"}
    scripts["hangs"] = "import time; time.sleep(100)"
    for name, text in scripts.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(gpu, "BENCHMARKS", tmp_path)
    parts = [gpu.Part(name, [f"{name}.py"], 60 if name != "hangs" else 1) for name in scripts]
    monkeypatch.setattr(gpu, "tiny", lambda: parts)
    assert gpu.main(["--tiny"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "failed or not finished: bad, hangs"
    assert (tmp_path / "done").exists()


def test_the_parts_tried_on_a_cpu_are_those_of_a_gpu(benchmark: Any) -> None:
    gpu = benchmark("gpu")
    assert [part.name for part in gpu.full()] == [part.name for part in gpu.tiny()]


def test_the_scripts_accept_the_options_of_the_parts_and_of_make(benchmark: Any) -> None:
    """Without running them: `make bench-gpu TINY=1` does."""
    gpu, makefile = benchmark("gpu"), (PROJECT_ROOT / "Makefile").read_text()
    commands = [command for part in (*gpu.full(), *gpu.tiny()) for command in part.commands]
    commands += [
        line.partition("benchmarks/")[2].replace("$(RECORD)", "--records x")
        for line in makefile.splitlines()
        if line.endswith("$(RECORD)")
    ]
    assert len(commands) > 20
    for command in commands:
        script, *words = shlex.split(command)
        benchmark(script.removesuffix(".py")).arguments(words)


@pytest.mark.slow
def test_probing_lists_what_the_results_are_made_of(benchmark: Any, tmp_path: Path, rows: Any) -> None:
    probing = benchmark("probing")
    probing.compose = lambda overrides: compose_run(*overrides)
    probing.LARGE, probing.GRID = [*probing.SMALL, "dataset.validation=0"], probing.GRID[:2]
    sizes = ["--images", "8", "--batches", "2", "--epochs", "2", "--rounds", "1", "--threads", "1"]
    bench = probing.Benchmark("probing", probing.arguments([*sizes, "--records", str(tmp_path)]))
    probing.making(bench, tmp_path / "scratch")
    probing.stored(bench, tmp_path / "scratch")
    probing.waiting(bench, tmp_path / "scratch")
    assert list(rows()) == ["making / evaluation", "A/A", "live / stored", "idle"]
    assert rows()["live / stored"]["samples"].keys() == {"live", "stored"}
    assert all(0 < share[0] < 100 for share in rows()["idle"]["samples"].values())
