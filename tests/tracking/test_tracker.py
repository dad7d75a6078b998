"""A tracker is one class and one line: the program works with any."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from headsweep.errors import UserError
from headsweep.launch.follow import follow
from headsweep.report.read.tracked import read_tracked
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.tracker import Tracker
from headsweep.tracking.trackers import TRACKERS, planned_tracker

GOLDEN = Path(__file__).parents[1] / "golden" / "output"


class NameList(Tracker):
    """Appends the names of what it is notified of to a file."""

    def __init__(self, uri: str | None, experiment: str, output: Path) -> None:
        self.path, self.names = output / f"{experiment}.txt", []

    def notify(self, folder):
        self.names.append(folder.path.name)

    def close(self, timeout=60.0):
        self.path.write_text("\n".join(self.names))

    def description(self):
        return f"names    {self.path}"


@pytest.mark.slow
def test_a_tracker_of_ten_lines_is_notified_of_every_run_and_is_named_below_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(TRACKERS, "none", NameList)
    output = OutputFolder(Path(shutil.copytree(GOLDEN, tmp_path / "output")))
    runs, (sweep,) = output.recorded_runs(), output.planned_sweeps()
    follow(
        sweep, lambda folders, config: 0, lambda path: None, [run for path in runs if (run := RunFolder(path)).result()]
    )
    names = (output.path / "headsweep.txt").read_text().splitlines()
    assert set(names) == {sweep.name, *(run.name for run in runs)} and names[0] == names[-1] == sweep.name
    assert f"names    {output.path}/headsweep.txt\n" in capsys.readouterr().out


def test_what_a_tracker_cannot_do_is_refused_in_one_line(tmp_path):
    tracker = NameList(None, "study", tmp_path)
    assert tracker.log_models([], lambda run: None) == 0
    with pytest.raises(UserError, match="'heads > 1': this tracker cannot be queried; name a sweep"):
        read_tracked(tracker, "heads > 1")


@pytest.mark.parametrize("name", TRACKERS)
def test_the_record_of_a_run_chooses_its_tracker(name, tmp_path):
    config = {"tracking": {"name": name, "uri": "sqlite:///x.db", "experiment": "study"}}
    assert ("x.db" in planned_tracker(config, tmp_path).description()) == (name == "mlflow")
