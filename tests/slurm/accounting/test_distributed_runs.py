"""One run over two nodes loses a rank, then the nodes of either rank, and ends as if nothing had happened."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cluster import RUN, Cluster, began, calm, jobs_of, output_of, sabotage, sweep, wait_until

from comparing import differences
from factories import by_seed, planned
from headsweep.tracking.run_folder import RunFolder
from ranks import trained

pytestmark = pytest.mark.slow

DISTRIBUTED = ["head=ga", "heads=2", "ema_decay=0.9", "duration='2 epochs'", "tracking=none"]  # and dropout
HERE = ("here", "here1")  # of a rank that waits, with its process
NODES = [f"hydra.launcher.{key}" for key in ("distributed=true", "nodes=2", "threads=1")]


def test_a_run_over_two_nodes_survives_the_loss_of_a_rank_and_of_each_node(cluster: Cluster, tmp_path: Path):
    output = tmp_path / "disturbed"
    answer = cluster.train_without_torch(
        *DISTRIBUTED, *NODES, "+hydra.launcher.extra.hold=true", f"paths.output={output}"
    )
    assert answer.returncode == 0, answer.stderr
    sabotage(output)
    (run,), (job,) = by_seed(output).values(), jobs_of(sweep(output)).values()
    cluster.ask("scontrol", "release", job)

    linger(run)
    os.kill(pid(run, 1), signal.SIGKILL)
    survive(run, 0)
    wait_until(lambda: "to be requeued" in output_of(output, job))
    assert "lost another process of this run" in output_of(output, job)
    for lost, left in ((0, 1), (1, 0)):
        linger(run)
        node = cluster.ask("scontrol", "show", "hostnames", cluster.node(job)).split()[lost]
        cluster.kill_node(node)
        survive(run, left)
        linger(run)  # on the two nodes that are left
        cluster.start_node(node)
    calm({0: run}, [0])
    wait_until(lambda: run.result() is not None)
    assert began(run) == [0, 4, 4, 4], "each time from the last whole epoch"
    assert "Restarts=3" in cluster.ask("scontrol", "show", "job", job)
    undisturbed = planned(tmp_path / "undisturbed", *RUN, *DISTRIBUTED)
    assert trained(undisturbed, 2) == [0, 0]
    assert differences(run, undisturbed) == []


def linger(run: RunFolder) -> None:
    """Wait until both ranks wait in the middle of the second epoch."""
    wait_until(lambda: all((run.path / name).exists() for name in HERE))


def pid(run: RunFolder, rank: int) -> int:
    return int((run.path / HERE[rank]).read_text())


def survive(run: RunFolder, rank: int) -> None:
    """Let the rank that is left go on until it notices; those of the next start wait again."""
    calm({0: run}, [0])
    wait_until(lambda: not Path(f"/proc/{pid(run, rank)}").exists())
    for name in (*HERE, "calm"):
        (run.path / name).unlink()
