"""Every benchmark runs, on sizes that say nothing of speed, and refuses what it cannot measure."""

import json
import shlex
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmark_files import FOLDER, rows
from headsweep.errors import UserError
from headsweep.sweep.measuring import Unmeasured

SMALL = ["model.width=32", "model.depth=1", "model.attention_heads=1", "schedule.warmup='0 epochs'", "heads=2"]
STEP = ["--model", "cct_2_3x2", "--image-size", "16", "--batch", "4", "--size", "32", "--rounds", "2", "--threads", "1"]


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
    plain, ours = benchmark("reference").PlainModel(run), model_of(run)
    torch.testing.assert_close(plain(images), ours(images, per_head=True), rtol=1e-4, atol=1e-4)


def test_flops_are_those_of_the_loop(benchmark: Any) -> None:
    """CCT-7/3x1 at 32x32, forward and backward: MFU is quoted on them, whatever algebra saves."""
    compose, loop_flops = benchmark("composed").compose, benchmark("roofline").loop_flops
    for words, billions in ((["head=seqpool"], 7.076), (["head=seqattn", "heads=8"], 7.506)):
        run = compose(["model=cct_7_3x1", "dataset=cifar100", *words])
        assert loop_flops(run) == pytest.approx(billions * 1e9, rel=1e-3)


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
