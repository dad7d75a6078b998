"""What is printed while runs train, where the terminal can do nothing but lines."""

import pytest

from headsweep.launch.progress_bars import Display
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunRecord
from headsweep.training.progress import Progress


@pytest.mark.parametrize("size", [("1", "1"), ("80", "24")])
def test_a_dumb_terminal_of_any_width_gets_a_line_an_epoch_and_no_bars(tmp_path, monkeypatch, capfd, size):
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes a file for a terminal then
    monkeypatch.setenv("COLUMNS", size[0])
    monkeypatch.setenv("LINES", size[1])
    folder = RunFolder(tmp_path)
    folder.create(RunRecord("a", "g", "name", "s", 0, {}, {}, {}, {}), "")
    with Display(1, epoch_lines=True) as display:
        display.started(folder)
        display.progress(folder, Progress(1, 2, 1, 2, {"val/top1": 0.5}))
    assert capfd.readouterr().err == "epoch 1/2  val/top1 50.0%\n"
