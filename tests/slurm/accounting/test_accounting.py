"""What became of jobs, in words, where `sacct` answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import Cluster, wait_until
from jobs import HOLD, check_pending, submit

from headsweep.status import accounting
from headsweep.status.job_state import JobState

pytestmark = pytest.mark.slow


def test_pending_jobs_have_a_reason_and_cancelled_jobs_are_lost(cluster: Cluster, tmp_path: Path):
    check_pending(cluster, tmp_path)


def test_accounting_remembers_what_the_queue_has_forgotten(cluster: Cluster, tmp_path: Path, monkeypatch):
    """The queue forgets after five minutes, which are not waited for: its accounting is asked at once."""
    jobs = submit(cluster, tmp_path, "seed=0,1,2,3", HOLD)
    monkeypatch.setenv("SLURM_CONF", str(cluster.place / "slurm.conf"))
    array = jobs[0].partition("_")[0]
    cluster.ask("scontrol", "release", jobs[2])
    wait_until(lambda: cluster.state(jobs[2]) == "RUNNING")
    cluster.ask("scancel", array)
    wait_until(lambda: all(job in ended(array) for job in jobs.values()))
    reported = ended(array)
    assert str(reported[jobs[0]]).startswith(f"job {jobs[0]} ended: CANCELLED (by 0); `headsweep retry`")
    assert str(reported[jobs[2]]).startswith(f"job {jobs[2]} ended: CANCELLED (by 0")


def ended(array: str) -> dict[str, JobState]:
    """What the accounting knows of the jobs of an array that are over."""
    return {state.job: state for state in accounting.ended([array]) if not state.is_active}
