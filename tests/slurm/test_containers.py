"""Jobs in containers, with a stand-in for Apptainer that executes its arguments where it is."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from headsweep.config import PROJECT_ROOT
from headsweep.config.launcher.launchers import parse_launcher
from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.launch.slurm import job_file, submit
from headsweep.launch.slurm.grouping import Group
from headsweep.tracking.run_folder import RunFolder

STAND_IN = """#!/bin/bash
echo "$@" > {place}/given
[ "$1" = exec ] && shift
while [[ "$1" = --* ]]; do
  case "$1" in --bind) shift 2 ;; --nv) shift ;; *) exit 99 ;; esac
done
shift  # the image
exec "$@"
"""


def settings(**changes: object) -> SlurmConfig:
    keys = OmegaConf.to_container(OmegaConf.load(PROJECT_ROOT / "conf" / "hydra" / "launcher" / "slurm.yaml"))
    found = parse_launcher(SlurmConfig, {**keys, **changes})
    assert isinstance(found, SlurmConfig)
    return found


@pytest.mark.parametrize("gpus", [0, 2])
def test_apptainer_starts_python_with_gpus_folders_environment_and_exit_code(gpus: int, tmp_path: Path):
    (tmp_path / "apptainer").write_text(STAND_IN.format(place=tmp_path))
    (tmp_path / "apptainer").chmod(0o755)
    sweep = tmp_path / "my outputs" / "sweeps" / "s"
    given = settings(
        container="/im ages/h.sif",
        container_mounts=["/data", "/a:/b:ro"],
        gpus=gpus,
        python=shlex.quote(sys.executable),
    )
    program = "import os, signal, sys; os.kill(os.getpid(), signal.SIGUSR2); print(os.environ['GIVEN']); sys.exit(7)"
    command = f"{job_file.job_python(sweep, given)} -S -c {shlex.quote(program)}"
    environment = {**os.environ, "GIVEN": "passed on", "PATH": os.pathsep.join([str(tmp_path), os.environ["PATH"]])}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (7, "passed on\n"), done.stderr
    output = tmp_path / "my outputs"
    folders = f"--bind {output}:{output} --bind /data:/data --bind /a:/b:ro"
    flags = "exec " + "--nv " * bool(gpus) + folders
    assert (tmp_path / "given").read_text().startswith(f"{flags} /im ages/h.sif {sys.executable} -S -c")


def test_pyxis_gets_the_image_and_the_folders_from_srun(tmp_path: Path):
    sweep = tmp_path / "sweeps" / "s"
    given = settings(container="nvcr.io#lab/h:1", container_runtime="pyxis", container_mounts=["/data"])
    (file,) = submit.sbatch_files(sweep, [Group(given, [RunFolder(tmp_path / "runs" / "a")])], limit=10)
    (srun,) = (shlex.split(line) for line in file.splitlines() if line.startswith("srun"))
    assert "--container-image=nvcr.io#lab/h:1" in srun
    assert f"--container-mounts={tmp_path}:{tmp_path},/data:/data" in srun
    assert srun[srun.index("sh") + 3] == "python3", "of the image"
    assert f"{sys.executable} -m headsweep.launch.slurm.window" in file, "outside, where sbatch is"


def test_without_a_container_the_interpreter_that_submits_is_used(tmp_path: Path):
    assert job_file.job_python(tmp_path / "sweeps" / "s", settings()).endswith(f" {shlex.quote(sys.executable)}")
