"""The output folder of a study, `paths.output`: what stands in it, and under which name.

runs/FINGERPRINT/  a run (see `run_folder`)
sweeps/NAME/       a sweep (see `sweep_folder`)
measured.json      what was measured on the machines that train here
mlflow.db          the store of MLflow, unless tracking.uri names another, and
mlartifacts/       its files
reports/           report pages of runs that were chosen by a filter
cache/             tokens of frozen backbones, unless paths.cache names another folder
slurm.lock         held by a command that submits jobs
changes/           uncommitted changes to the code that runs were planned with, as patches
reproductions/     runs that `headsweep reproduce` has trained again
"""

from __future__ import annotations

from pathlib import Path

RUN_RECORD = "run.json"
SWEEP_PLAN = "plan.json"
MLFLOW_ARTIFACTS = "mlartifacts"


class OutputFolder:
    """Paths in an output folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs = path / "runs"
        self.sweeps = path / "sweeps"
        self.measurements = path / "measured.json"
        self.mlflow_database = path / "mlflow.db"
        self.mlflow_artifacts = path / MLFLOW_ARTIFACTS
        self.reports = path / "reports"
        self.cache = path / "cache"
        self.submission_lock = path / "slurm.lock"
        self.reproductions = path / "reproductions"

    def patch(self, name: str) -> Path:
        """Return the file of the uncommitted changes with that digest."""
        return self.path / "changes" / f"{name}.diff"

    @classmethod
    def containing(cls, path: Path) -> OutputFolder:
        """Return the output folder in which the folder of a run or of a sweep lies."""
        return cls(path.parents[1])

    def recorded_runs(self) -> list[Path]:
        """Return the folders of all runs that were planned here, in the order of their fingerprints."""
        return sorted(record.parent for record in self.runs.glob(f"*/{RUN_RECORD}"))

    def planned_sweeps(self) -> list[Path]:
        """Return the folders of all sweeps that were planned here, in the order of their names."""
        return sorted(plan.parent for plan in self.sweeps.glob(f"*/{SWEEP_PLAN}"))
