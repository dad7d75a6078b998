"""Arrays and jobs at a time, as many as a cluster takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cluster import Cluster, jobs_of, sweep, wait_until

from factories import by_seed
from headsweep.status import waiting

pytestmark = pytest.mark.slow


def test_arrays_are_as_long_as_the_cluster_allows_and_come_one_after_the_other(forgetful: Cluster, tmp_path: Path):
    """The cluster takes arrays of up to 4 jobs."""
    job = ["seed=0,1,2,3,4,5", "+hydra.launcher.extra.hold=true", "hydra.launcher.max_parallel=3"]
    answer = forgetful.train_without_torch(*job, f"paths.output={tmp_path}")
    assert answer.returncode == 0, answer.stderr
    jobs = [word.rstrip(":") for word in re.findall(r"job (\S+)", answer.stdout)]
    first, second = (jobs[at].partition("_")[0] for at in (0, 4))
    assert jobs == [*(f"{first}_{element}" for element in range(4)), f"{second}_0", f"{second}_1"]
    shown = forgetful.ask("scontrol", "-o", "show", "job", first)
    assert "ArrayTaskThrottle=3" in shown
    assert re.search(rf"Dependency=afterany:{first}_\*", forgetful.ask("scontrol", "-o", "show", "job", second))
    forgetful.ask("scancel", first, second)


def test_jobs_that_end_submit_those_that_had_to_wait(forgetful: Cluster, tmp_path: Path):
    job = ["seed=0,1,2,3", "duration='1 epochs'", "tracking=none", f"paths.output={tmp_path}"]
    answer = forgetful.train_without_torch(*job, "hydra.launcher.max_submitted=2")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("\njob ") == 2
    assert (
        "2 runs wait until more jobs may be in the queue; jobs that end, and `headsweep watch`, submit" in answer.stdout
    )
    runs = by_seed(tmp_path).values()
    wait_until(lambda: all(run.result() for run in runs))
    assert len(set(jobs_of(sweep(tmp_path)).values())) == 4
    wait_until(lambda: not waiting.of_this_user(sweep(tmp_path)))
    wait_until(lambda: "standby" not in forgetful.ask("squeue", "--noheader", "--format=%j %T"))
