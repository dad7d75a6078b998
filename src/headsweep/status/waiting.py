"""Runs that wait until more jobs may be in the cluster's queue: recorded in a sweep's folder, a file a user."""

from __future__ import annotations

import shlex
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from headsweep.status.submissions import settings_file, this_user
from headsweep.text import is_file_name
from headsweep.tracking import atomic_files
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.typed_files import read_json, require

FILES = "slurm/waiting-*.json"
FIX = "remove it, and give the sweep's command again"


@dataclass(frozen=True)
class Batch:
    """Runs that wait with the same settings and code."""

    runs: list[str]  # fingerprints
    settings: dict[str, Any] | None = None  # of the command that made them wait; None: those of the sweep's last one
    refused: str = ""  # why the last attempt to submit them failed
    code: str = ""  # name of the copy of the code that their jobs are to run; of earlier versions, which had none: ""
    versions: dict[str, dict[str, Any]] = field(default_factory=dict)  # run -> version of that code, for its record


@dataclass(frozen=True)
class Waiting:
    """The content of a file."""

    batches: list[Batch] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)  # of earlier versions, which recorded no settings

    def check(self) -> None:
        """Raise ValueError for an impossible name of a run."""
        for batch in self.all_batches:
            require("runs", batch.runs, all(map(is_file_name, batch.runs)), "names of folders")
            require("code", batch.code, not batch.code or is_file_name(batch.code), "the name of a folder")

    @property
    def all_batches(self) -> list[Batch]:
        """The batches, those of earlier versions first."""
        return [*([Batch(self.runs)] if self.runs else []), *self.batches]


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


def batches(sweep: Path) -> list[Batch]:
    """Return what waits in a sweep for this user. Raises Damaged for a file that is not as it was written."""
    found = read_json(file_of(sweep), Waiting, FIX)
    return found.all_batches if found else []


def of_this_user(sweep: Path) -> list[str]:
    """Return the runs of a sweep that wait for this user. Raises Damaged as `batches`."""
    return [run for batch in batches(sweep) for run in batch.runs]


def refusals(sweep: Path) -> dict[str, str]:
    """Return the runs of a sweep that wait for any user -> `Batch.refused`. Raises Damaged as `batches`."""
    found = [read_json(path, Waiting, FIX) for path in sweep.glob(FILES)]
    return {run: batch.refused for it in found if it for batch in it.all_batches for run in batch.runs}


def record(sweep: Path, batches: Sequence[Batch]) -> None:
    """Record what waits in a sweep for this user, instead of what did; batches without runs are left out."""
    if any(batch.runs for batch in batches):
        atomic_files.write_json(file_of(sweep), {"batches": [asdict(batch) for batch in batches if batch.runs]})
    else:
        file_of(sweep).unlink(missing_ok=True)


def without(batches: Sequence[Batch], runs: Container[str]) -> list[Batch]:
    """Return the batches without some of their runs; a batch may become empty."""
    return [
        replace(
            batch,
            runs=[run for run in batch.runs if run not in runs],
            versions={run: version for run, version in batch.versions.items() if run not in runs},
        )
        for batch in batches
    ]


def _name() -> str:
    return FILES.replace("*", this_user())
