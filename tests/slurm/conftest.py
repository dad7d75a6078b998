"""Real SLURM clusters, each for the whole session and for the tests of a folder.

Where SLURM is not installed, tests that need one are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cluster import RUN, Cluster
from filelock import FileLock
from omegaconf import OmegaConf
from scripted import Sbatch

from composing import compose_run
from factories import hand_made, shared
from headsweep.config import PROJECT_ROOT
from headsweep.config.launcher.launchers import parse_launcher
from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.launch.in_process import InProcess
from headsweep.launch.run_sweep import run_sweep
from headsweep.tracking.run_folder import RunFolder
from scripts import Scripts
from shapes import unchecked

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
ACCOUNTING = ("slurmdbd", "mariadbd", "mysql")


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that stays until the session ends: a job may outlive its test."""
    return tmp_path_factory.mktemp(re.sub(r"\W", "_", request.node.name)[:30])


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster whose `sacct` answers."""
    _require(*PROGRAMS, *ACCOUNTING)
    with _started(accounting=True, array=1001) as started:
        yield started


@pytest.fixture(scope="session")
def forgetful() -> Iterator[Cluster]:
    """A cluster without accounting, which forgets its jobs, and with short arrays."""
    _require(*PROGRAMS)
    with _started(accounting=False, array=4) as started:
        yield started


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine runs, trained here, with as many threads each as a job gives them."""
    output = shared(tmp_path_factory) / "undisturbed"
    run = compose_run(*RUN, "duration='2 epochs'", "tracking=none", f"paths.output={output}")
    with FileLock(f"{output}.lock"), unchecked():  # of whichever worker comes first
        run_sweep([replace(run, seed=seed) for seed in range(9)], InProcess())
    return output


@pytest.fixture
def settings() -> SlurmConfig:
    """Those of conf/."""
    found = parse_launcher(SlurmConfig, OmegaConf.load(PROJECT_ROOT / "conf" / "hydra" / "launcher" / "slurm.yaml"))
    assert isinstance(found, SlurmConfig)
    return found


@pytest.fixture
def sbatch(scripts: Scripts) -> Sbatch:
    """A cluster of scripts."""
    return Sbatch(scripts.place)


@pytest.fixture
def runs(tmp_path: Path) -> list[RunFolder]:
    """Two seeds of gap with 1 head, and of ga with 1 and with 8."""
    cells = [("gap", 1), ("ga", 1), ("ga", 8)] * 2
    output = tmp_path / "outputs"
    return [
        hand_made(output, f"{head}{heads}-{at}", {"head": {"name": head}, "heads": heads})
        for at, (head, heads) in enumerate(cells)
    ]


@contextmanager
def _started(accounting: bool, array: int) -> Iterator[Cluster]:
    # In memory where the folders of tests are, as a database that is synced to a disk takes ten seconds to start; and
    # short, as unix sockets lie within.
    root = os.environ["PYTEST_DEBUG_TEMPROOT"]
    place = Path(tempfile.mkdtemp(prefix="slurm-", dir=root if root == "/dev/shm" else "/tmp"))
    started = Cluster.start(place, accounting, array)
    try:
        yield started
    finally:
        started.stop()
    shutil.rmtree(place)  # with its logs, unless something is wrong


def _require(*programs: str) -> None:
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    missing = [program for program in programs if shutil.which(program, path=path) is None]
    if missing and os.environ.get("HEADSWEEP_REQUIRE_SLURM"):
        pytest.fail(f"HEADSWEEP_REQUIRE_SLURM is set, but SLURM lacks {', '.join(missing)}")
    if missing:
        pytest.skip(f"SLURM is not installed: no {', '.join(missing)}; .ci/run installs it")
