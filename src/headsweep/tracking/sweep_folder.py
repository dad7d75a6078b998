"""The folder of a sweep: the runs of the same cells, planned by any number of commands, and their table.

plan.json  name, axes, design and runs (fingerprints) of all commands that planned it, and those commands
table.md, table.csv  the comparison
report/    report.html, the comparison as a page, and its figures
screening.json  the choices of successive halving; absent if all runs are trained to their end
started    unix time of the first launch; its presence means that the sweep has several runs
launchers/ a file for each process that trains it (see `active_launchers`)

The folder of each of its runs has a line for it in `sweeps.txt`; the first line there is the sweep of a run wherever
only one is possible.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headsweep.credentials import redacted
from headsweep.text import is_file_name
from headsweep.tracking import active_launchers, atomic_files
from headsweep.tracking.design import Design
from headsweep.tracking.metrics_log import LATEST
from headsweep.tracking.output_folder import RUN_RECORD, SWEEP_PLAN, OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.screening import Screening
from headsweep.tracking.typed_files import Damaged, read_json, read_text, require

SCREENING = "screening.json"
_FIX = "the sweep's command writes it again"


@dataclass(frozen=True)
class _Plan:
    """The content of plan.json; what older versions did not write has a default."""

    runs: list[str]  # fingerprints
    name: str = ""
    axes: list[str] = field(default_factory=list)
    code: dict[str, Any] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    design: Design = field(default_factory=Design)

    def check(self) -> None:
        """Raise ValueError for a run that is not the name of a folder, or a wrong design."""
        self.design.check()
        for at, run in enumerate(self.runs):
            require(f"runs[{at}]", run, is_file_name(run), "the name of a folder")


class SweepFolder:
    """The files of one sweep."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        self.report = path / "report" / "report.html"
        self._started = path / "started"
        self._screening = path / SCREENING

    @property
    def output(self) -> OutputFolder:
        """The output folder in which it lies."""
        return OutputFolder.containing(self.path)

    def register(self, runs: Sequence[RunFolder]) -> None:
        """Record that `runs` are launched as parts of this sweep; a single run is not a sweep."""
        for folder in (self.path, self.path / "launchers", *(run.path for run in runs)):
            atomic_files.remove_partial(folder)
        if len(runs) == 1 and not self.has_several_runs():
            return
        if not self.has_several_runs():
            atomic_files.write_text(self._started, repr(time.time()))
        for run in runs:
            run.join(self.name)

    def has_several_runs(self) -> bool:
        """Return whether it was ever launched with several runs."""
        return self._started.exists()

    def is_active(self) -> bool:
        """Return whether a process trains its runs at this moment."""
        return bool(active_launchers.find(self.path))

    def started(self) -> float:
        """Return the Unix time of the first launch.

        Raises:
            Damaged: `started` holds no time.
        """
        text = read_text(self._started, f"remove it, and {_FIX}")
        try:
            moment = float(text or "")
            require("it", moment, 0 <= moment <= LATEST, "seconds since 1970")
        except ValueError as error:
            raise Damaged(self._started, str(error), f"remove it, and {_FIX}") from error
        return moment

    def plan(self) -> dict[str, Any]:
        """Return name, axes, runs (fingerprints), code, commands and design.

        Raises:
            Damaged: plan.json is absent or not as it was written.
        """
        return asdict(self._plan())

    def design(self) -> Design:
        """Return what its study declared besides axes. Raises Damaged as `plan`."""
        return self._plan().design

    def _plan(self) -> _Plan:
        path = self.path / SWEEP_PLAN
        plan = read_json(path, _Plan, _FIX)
        if plan is None:
            raise Damaged(path, "expected a file, found none", _FIX)
        return plan

    def commands(self) -> list[str]:
        """Return the commands that planned it, without passwords; none for a plan of an older version."""
        return [redacted(command) for command in self.plan()["commands"]]

    def planned(self) -> list[RunFolder]:
        """Return the planned runs, whether their folders exist or not. Raises Damaged as `plan`."""
        return [RunFolder(self.output.runs / fingerprint) for fingerprint in self.plan()["runs"]]

    def runs(self) -> list[RunFolder]:
        """Return the planned runs whose folders exist. Raises Damaged as `plan`."""
        return [folder for folder in self.planned() if (folder.path / RUN_RECORD).exists()]

    def screening(self) -> Screening | None:
        """Return the choices of successive halving; None if it is not used.

        Raises:
            Damaged: screening.json is not as it was written.
        """
        return read_json(self._screening, Screening, _FIX)

    def write_screening(self, screening: Screening) -> None:
        """Replace the choices of successive halving."""
        atomic_files.write_json(self._screening, asdict(screening))

    def forget_screening(self) -> None:
        """Record that all runs are trained to their end."""
        self._screening.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """Return plan, table and report, as far as they exist."""
        found = [self.path / name for name in (SWEEP_PLAN, "table.md", "table.csv")]
        return [path for path in (*found, self.report) if path.is_file() and not path.is_symlink()]


def sweeps_of(run: RunFolder) -> list[SweepFolder]:
    """Return the sweeps that a run belongs to, in the order of `RunFolder.sweeps`. Raises Damaged as that."""
    return [SweepFolder(run.output.sweeps / name) for name in run.sweeps()]
