"""The settings with which a sweep was submitted, by user."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headsweep.config.launcher.launchers import parse_launcher
from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.errors import ConfigError
from headsweep.status import submissions, waiting
from headsweep.tracking import atomic_files
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.typed_files import Damaged, read_text, require

# Keys that files of earlier versions lack, with values that change nothing.
ADDED: dict[str, Any] = {
    "max_submitted": None,
    "container": None,
    "container_runtime": "apptainer",
    "container_mounts": [],
    "needs": [],
    "from_records": [],
    "check": "login",
    "time_factor": 1,
}


def record(sweep: Path, settings: SlurmConfig) -> None:
    """Record the settings with which this user submits a sweep."""
    atomic_files.write_text(submissions.settings_file(sweep), json.dumps(plain(settings)))


def plain(settings: SlurmConfig) -> dict[str, Any]:
    """Return settings as JSON has them."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(settings), default=lambda value: value.value))
    return found


def submitted_with(sweep: Path) -> SlurmConfig:
    """Return the settings with which the user last submitted the sweep; another user's, if the user never did.

    Raises:
        Damaged: their file is not as it was written.
    """
    path, fix = submissions.settings_file(sweep), "the sweep's command writes it again"
    if not path.exists():
        path = max(submissions.settings_files(sweep), key=lambda file: file.stat().st_mtime, default=path)
    return _parsed(read_text(path, fix) or "", path, fix)


def waiting_with(sweep: Path, batch: waiting.Batch) -> SlurmConfig:
    """Return the settings with which runs of a sweep wait. Raises Damaged as `submitted_with`."""
    if batch.settings is None:
        return submitted_with(sweep)
    return _parsed(json.dumps(batch.settings), waiting.file_of(sweep), waiting.FIX)


def by_settings(sweep: Path, runs: Sequence[RunFolder]) -> list[tuple[SlurmConfig, list[RunFolder]]]:
    """Return runs of a sweep with the settings to submit them with again: those that wait, with which they wait."""
    left = {run.path.name: run for run in runs}
    found = [
        (waiting_with(sweep, batch), [left.pop(run) for run in batch.runs if run in left])
        for batch in waiting.batches(sweep)
    ]
    return [it for it in (*found, (submitted_with(sweep), list(left.values()))) if it[1]]


def _parsed(text: str, path: Path, fix: str) -> SlurmConfig:
    try:
        settings = json.loads(text)
        require("content", settings, isinstance(settings, dict), "an object")
        return parse_launcher(SlurmConfig, {**ADDED, **settings})
    except (ValueError, RecursionError, ConfigError) as error:
        raise Damaged(path, f"expected settings of SLURM, found something else ({error})", fix) from error
