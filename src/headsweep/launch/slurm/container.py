"""The container in which a job's processes run: what starts Python in it, and the arguments of srun."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from headsweep.config.launcher.slurm import ContainerRuntime, SlurmConfig


def python(settings: SlurmConfig, output: Path) -> str:
    """Return the shell words that start Python in a job: on the node, or in its container.

    Args:
        settings: of the job.
        output: the output folder, which holds the runs and the code.
    """
    if settings.container is None:
        return settings.python or shlex.quote(sys.executable)
    inside = settings.python or "python3"
    if settings.container_runtime is ContainerRuntime.pyxis:  # srun starts the container
        return inside
    binds = [word for mount in _mounts(settings, output) for word in ("--bind", mount)]
    gpus = ["--nv"] if settings.gpus else []
    return f"{shlex.join(['apptainer', 'exec', *gpus, *binds, settings.container])} {inside}"


def srun_arguments(settings: SlurmConfig, output: Path) -> list[str]:
    """Return the arguments by which Pyxis starts the container, if the job is to run in one of its."""
    if settings.container is None or settings.container_runtime is not ContainerRuntime.pyxis:
        return []
    mounts = ",".join(_mounts(settings, output))
    return [f"--container-image={settings.container}", f"--container-mounts={mounts}"]


def _mounts(settings: SlurmConfig, output: Path) -> list[str]:
    """Return what the container sees of the node, each as OUTSIDE:INSIDE."""
    return [it if ":" in it else f"{it}:{it}" for it in (str(output), *settings.container_mounts)]
