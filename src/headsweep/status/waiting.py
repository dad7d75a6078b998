"""Runs that wait until more jobs may be in the cluster's queue: recorded in a sweep's folder, a file a user."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headsweep.status.submissions import settings_file, this_user
from headsweep.text import is_file_name
from headsweep.tracking import atomic_files
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.typed_files import read_json, require

FILES = "slurm/waiting-*.json"
FIX = "remove it, and give the sweep's command again"


@dataclass(frozen=True)
class Waiting:
    """The content of a file."""

    runs: list[str]  # fingerprints

    def check(self) -> None:
        """Raise ValueError for an impossible name of a run."""
        require("runs", self.runs, all(map(is_file_name, self.runs)), "names of folders")


def file_of(sweep: Path) -> Path:
    """Return the file of this user's runs that wait in a sweep."""
    return sweep / _name()


def sweeps_in(output: OutputFolder) -> list[Path]:
    """Return the sweeps in which runs of this user wait, the one that the user submitted first before the others."""

    def submitted(sweep: Path) -> float:
        settings = settings_file(sweep)
        return settings.stat().st_mtime if settings.exists() else 0.0

    return sorted((path.parents[1] for path in output.sweeps.glob(f"*/{_name()}")), key=submitted)


def pattern(output: OutputFolder) -> str:
    """Return a shell pattern for the files of this user's runs that wait in any sweep of an output folder."""
    return f"{shlex.quote(str(output.sweeps))}/*/{shlex.quote(_name())}"


def of_this_user(sweep: Path) -> list[str]:
    """Return the runs of a sweep that wait for this user. Raises Damaged for a file that is not as it was written."""
    found = read_json(file_of(sweep), Waiting, FIX)
    return found.runs if found else []


def of_all(sweep: Path) -> set[str]:
    """Return the runs of a sweep that wait for any user. Raises Damaged as `of_this_user`."""
    found = [read_json(path, Waiting, FIX) for path in sweep.glob(FILES)]
    return {run for it in found if it for run in it.runs}


def record(sweep: Path, runs: Sequence[str]) -> None:
    """Record which runs of a sweep wait for this user, instead of those that did."""
    if runs:
        atomic_files.write_json(file_of(sweep), {"runs": list(runs)})
    else:
        file_of(sweep).unlink(missing_ok=True)


def _name() -> str:
    return FILES.replace("*", this_user())
