"""A cluster of scripts that keep what they are given, for what is decided on the login node."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from headsweep.tracking.run_folder import RunFolder
from scripts import Scripts


class Sbatch(Scripts):
    """Commands on the PATH: sbatch keeps the files that it is given, and the others print nothing."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        keep = f'[ "$1" = --test-only ] && exec cat > {place}/asked.$n; cp "$1" {place}/$n.given'
        lines = f"n=$(ls {place}/*.* | wc -l); {keep}; echo Submitted batch job $((10 + n))"
        for name, words in {"scontrol": ":", "squeue": ":", "sacct": ":", "sinfo": ":", "srun": ":"}.items():
            self.write(name, words)
        self.write("sbatch", lines)

    def files(self, kind: str = "given") -> list[str]:
        """What it was given, or asked with --test-only, in this order."""
        found = sorted(self.place.glob("*.*"), key=lambda path: path.stat().st_mtime_ns)
        return [path.read_text() for path in found if kind in path.name]


def sweep_of(runs: Sequence[RunFolder]) -> Path:
    path = runs[0].output.sweeps / "one"
    path.mkdir(parents=True, exist_ok=True)
    return path


def asked(file: str) -> list[str]:
    """The resources that a file of sbatch asks for."""
    return re.findall(r"#SBATCH --(mem=\S+|time=\S+|gpus-per-node=\S+|array=[\d-]+)", file)
