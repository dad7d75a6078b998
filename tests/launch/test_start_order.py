"""Runs start seed by seed, while plan and table keep the order of the grid."""

from __future__ import annotations

from pathlib import Path

from commands import TINY_RUN
from composing import compose_run
from headsweep.launch.launcher import Launcher
from headsweep.launch.run_sweep import run_sweep
from headsweep.tracking.sweep_folder import SweepFolder


class Recording(Launcher):
    """Trains nothing, and records what it is told to start."""

    detached = True

    def __init__(self) -> None:
        self.started: list[tuple[str, int]] = []

    def check(self, runs):
        return [{} for _ in runs]

    def start(self, missing, display, notify):
        records = [folder.record() for folder in missing]
        self.started = [(record.config["head"]["name"], record.seed) for record in records]


def test_the_first_seed_of_every_cell_starts_before_the_second(tmp_path: Path) -> None:
    cells = [(head, seed) for head in ("gap", "cls") for seed in (0, 1, 2)]
    output = f"paths.output={tmp_path}"
    grid = [compose_run(*TINY_RUN, output, f"head={head}", f"seed={seed}") for head, seed in cells]
    launcher = Recording()
    plan = run_sweep(grid, launcher)
    assert launcher.started == [(head, seed) for seed in (0, 1, 2) for head in ("gap", "cls")]
    planned = [folder.record() for folder in SweepFolder(plan.folder).planned()]
    assert [(record.config["head"]["name"], record.seed) for record in planned] == cells
