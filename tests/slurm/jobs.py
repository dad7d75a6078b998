"""Jobs that a test submits, and what `headsweep status` shows of them; see also cluster.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from click import unstyle
from cluster import Cluster, jobs_of, sweep, wait_until

from factories import by_seed
from headsweep.status.render import show

HOLD = "+hydra.launcher.extra.hold=true"


def check_pending(cluster: Cluster, output: Path) -> None:
    """Held; cancelled by hand before it began, which a cluster forgets; and waiting for a partition that is down."""
    jobs = submit(cluster, output, "seed=0,1,2,3", "hydra.launcher.partition=urgent", HOLD)
    cluster.ask("scontrol", "update", "partitionname=urgent", "state=DOWN")
    cluster.ask("scancel", jobs[1])
    cluster.ask("scontrol", "release", jobs[2])
    wait_until(lambda: "PartitionDown" in (reported := words(cluster, output))[2] and reported[1].startswith("lost"))
    reported = words(cluster, output)
    assert reported[0] == f"queued  job {jobs[0]} is pending: JobHeldUser"
    assert reported[1] == f"lost  job {jobs[1]} is unknown to the cluster; `headsweep retry` submits the run again"
    assert reported[2] == f"queued  job {jobs[2]} is pending: PartitionDown"
    again = cluster.headsweep("retry", "--output", output)
    assert again.returncode == 0 and "1 of 4 runs of " in again.stdout, again.stdout + again.stderr
    cancelled = cluster.headsweep("cancel", "--output", output)
    assert cancelled.returncode == 0, cancelled.stderr
    wait_until(lambda: all(word.startswith("lost  ") for word in words(cluster, output).values()))
    cluster.ask("scontrol", "update", "partitionname=urgent", "state=UP")


def submit(cluster: Cluster, output: Path, *arguments: str) -> dict[int, str]:
    """Seed -> job."""
    short = ["duration='2 epochs'", "hydra.launcher.threads=1", "tracking=none"]
    answer = cluster.train_without_torch(*short, *arguments, f"paths.output={output}")
    assert answer.returncode == 0, answer.stderr
    jobs = jobs_of(sweep(output))
    return {seed: jobs[folder.path.name] for seed, folder in by_seed(output).items()}


def words(cluster: Cluster, output: Path) -> dict[int, str]:
    """Seed -> what `headsweep status` shows of a run: its state and the note behind its name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.place / "slurm.conf"))
        lines = unstyle(show("latest", output)).splitlines()
    table = [line.split(None, 6) for line in lines[lines.index("") + 2 :]]
    seeds = {folder.path.name: seed for seed, folder in by_seed(output).items()}
    return {seeds[row[0]]: f"{row[1]}  {row[6] if len(row) > 6 else ''}" for row in table}
