"""`headsweep report`: which runs it reads, what it writes, and what it logs to MLflow."""

from __future__ import annotations

import pytest

import commands
from headsweep.report.html import document
from headsweep.tracking import atomic_files
from headsweep.tracking.sweep_folder import SweepFolder
from headsweep.tracking.tracker import NullTracker
from headsweep.tracking.trackers import TRACKERS


@pytest.fixture
def give(tmp_path, capsys):
    """Exit code, stdout and stderr of `headsweep report ARGUMENTS` on the sweeps of this test."""

    def command(*arguments: str) -> tuple[int, str, str]:
        code = commands.give("report", *arguments, "--output", tmp_path)
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def logged(monkeypatch) -> list[str]:
    """Names of the sweeps that are logged to MLflow; nothing is sent."""
    names: list[str] = []

    class Recorder(NullTracker):
        def __init__(self, uri, experiment, output) -> None:
            self.uri = uri

        def notify(self, folder) -> None:
            assert folder.report.exists()
            names.append(folder.name)

        def description(self) -> str:
            return f"MLflow at {self.uri}"

    monkeypatch.setitem(TRACKERS, "mlflow", Recorder)
    return names


@pytest.fixture
def make_sweep(make_run, tmp_path):
    """A sweep of two cells, launched as one."""

    def make(tracking: str, tops=(0.9, 0.8), **options) -> SweepFolder:
        where = {"tracking__name": tracking, "tracking__uri": "sqlite:///x", "tracking__experiment": "study"}
        heads = zip((1, 2), tops, strict=True)
        runs = [make_run("ga", count, 0, top1, **where, **options) for count, top1 in heads]
        sweep = SweepFolder(tmp_path / "sweeps" / "pilot")
        plan = {"name": "pilot", "axes": ["heads"], "runs": [run.path.name for run in runs]}
        atomic_files.write_json(sweep.path / "plan.json", plan)
        sweep.register(runs)
        return sweep

    return make


@pytest.mark.slow
def test_the_page_and_its_figures_are_written_and_logged_to_mlflow(make_sweep, give, logged):
    sweep = make_sweep("mlflow")
    code, printed, _ = give("pilot")
    figures = sorted((sweep.report.parent / document.FIGURES).iterdir())
    assert code == 0
    assert printed.splitlines() == [
        f"report   {sweep.report}",
        f"figures  {sweep.report.parent / document.FIGURES} ({len(figures) // 2}, as SVG and PDF)",
        "MLflow at sqlite:///x",
    ]
    assert logged == ["pilot"]
    assert "Made by <code>headsweep report pilot</code>" in sweep.report.read_text()


@pytest.mark.usefixtures("undrawn")
def test_without_tracking_nothing_is_logged_and_the_page_has_its_options(make_sweep, give, logged):
    sweep = make_sweep("none")
    code, _, _ = give("pilot", "--baseline", "heads=1", "--metric", "top5")
    assert (code, logged) == (0, [])
    page = sweep.report.read_text()
    assert "headsweep report pilot --baseline heads=1 --metric top5" in page
    assert "Δ top-5" in page


@pytest.mark.usefixtures("undrawn")
def test_a_failed_run_is_named_with_the_last_line_of_its_error_and_its_log(make_sweep, give):
    sweep = make_sweep("none", tops=(0.9, None))
    failed = sweep.runs()[1]
    failed.fail("Traceback\nRuntimeError: <out> of memory")
    assert give("pilot")[0] == 0
    page = sweep.report.read_text()
    assert "RuntimeError: &lt;out&gt; of memory" in page
    assert f"runs/{failed.path.name}/log.txt" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("other",), "other: no such sweep; known: pilot"),
        (("pilot", "--metric", "f1"), "--metric f1: unknown metric; known: top1"),
        (("pilot", "--baseline", "head=none"), "--baseline head=none: no such cell among 2; head is ga"),
        (("pilot", "--baseline", "ga"), "expected KEY=VALUE"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(make_sweep, give, arguments, message):
    sweep = make_sweep("none")
    code, printed, error = give(*arguments)
    assert (code, printed) == (2, "")
    assert message in error and error.count("\n") == 1
    assert not sweep.report.parent.exists()


def test_a_sweep_whose_runs_are_gone_is_one_line(make_sweep, give):
    for run in make_sweep("none").runs():
        (run.path / "run.json").unlink()
    code, _, error = give("pilot")
    assert code == 2
    assert "no runs to compare" in error and error.count("\n") == 1
