"""The settings with which a sweep was submitted, by user."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headsweep.config.launcher.launchers import parse_launcher
from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.errors import ConfigError
from headsweep.status import submissions
from headsweep.tracking import atomic_files
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
    text = json.dumps(asdict(settings), default=lambda value: value.value)
    atomic_files.write_text(submissions.settings_file(sweep), text)


def submitted_with(sweep: Path) -> SlurmConfig:
    """Return the settings with which the user last submitted the sweep; another user's, if the user never did.

    Raises:
        Damaged: their file is not as it was written.
    """
    path, fix = submissions.settings_file(sweep), "the sweep's command writes it again"
    if not path.exists():
        path = max(submissions.settings_files(sweep), key=lambda file: file.stat().st_mtime, default=path)
    try:
        settings = json.loads(read_text(path, fix) or "")
        require("content", settings, isinstance(settings, dict), "an object")
        return parse_launcher(SlurmConfig, {**ADDED, **settings})
    except (ValueError, RecursionError, ConfigError) as error:
        raise Damaged(path, f"expected settings of SLURM, found something else ({error})", fix) from error
