"""A sweep's folder: the runs of the same cells, whichever commands they came from, and their table.

plan.json  name, axes and runs (fingerprints) of all commands that planned it, and those commands
table.md, table.csv  the comparison
report/    it as a page, report.html, and its figures
screening.json  what successive halving has chosen; not there if all runs were to be trained to their end
started    unix time of the first launch; its presence means that the sweep has several runs
launchers/ a file for each process that trains it (see `launchers`)

The folder of each of its runs has a line for it in `sweeps.txt`; the first line there is the sweep that a run belongs
to wherever it can belong to only one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headsweep.credentials import hidden
from headsweep.tracking import durable, launchers
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.screening import Screening


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.report = path / "report" / "report.html"
        self._started = path / "started"
        self._screening = path / "screening.json"

    def launch(self, runs: Sequence[RunFolder]) -> None:
        """Have it known that `runs` are launched as parts of this sweep. One run is no sweep."""
        if len(runs) == 1 and not self.is_one():
            return
        if not self.is_one():
            durable.write_text(self._started, repr(time.time()))
        for run in runs:
            if self.name not in _sweep_names(run):
                with (run.path / "sweeps.txt").open("a") as file:
                    file.write(f"{self.name}\n")

    def is_one(self) -> bool:
        """Has it ever been launched with several runs?"""
        return self._started.exists()

    def is_active(self) -> bool:
        """Does a process launch its runs at this moment?"""
        return bool(launchers.find(self.path))

    def started(self) -> float:
        """Unix time of the first launch."""
        return float(self._started.read_text())

    def plan(self) -> dict[str, Any]:
        """What was planned."""
        return json.loads((self.path / "plan.json").read_text())

    def commands(self) -> list[str]:
        """The commands that planned it, as they were given, but for passwords; none where an older version did."""
        return [hidden(command) for command in self.plan().get("commands", [])]

    def runs(self) -> list[RunFolder]:
        """The planned runs whose folders are still there."""
        places = [self.path.parents[1] / "runs" / fingerprint for fingerprint in self.plan()["runs"]]
        return [RunFolder(place) for place in places if (place / "run.json").exists()]

    def screening(self) -> Screening | None:
        """What successive halving has chosen; None if it was not asked for."""
        return Screening.of(json.loads(self._screening.read_text())) if self._screening.exists() else None

    def write_screening(self, screening: Screening) -> None:
        """State what successive halving has chosen so far."""
        durable.write_json(self._screening, asdict(screening))

    def forget_screening(self) -> None:
        """All runs are to be trained to their end."""
        self._screening.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """Plan, table and report, as far as they are there."""
        found = [self.path / name for name in ("plan.json", "table.md", "table.csv")]
        return [path for path in (*found, self.report) if path.exists()]


def sweeps_of(run: RunFolder) -> list[SweepFolder]:
    """The sweeps of several runs that a run belongs to, in the order in which they were first launched."""
    return [SweepFolder(run.path.parents[1] / "sweeps" / name) for name in _sweep_names(run)]


def _sweep_names(run: RunFolder) -> list[str]:
    path = run.path / "sweeps.txt"
    return list(dict.fromkeys(path.read_text().splitlines())) if path.exists() else []
