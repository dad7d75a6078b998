"""The standby job: it submits runs that wait once all jobs have ended, also if none of them could do so.

A user has at most one in an output folder that is pending.
"""

from __future__ import annotations

import hashlib

from headsweep.status import cluster, submissions
from headsweep.tracking.output_folder import OutputFolder


def name_in(output: OutputFolder) -> str:
    """Return its name in the cluster, which jobs of other output folders and users do not have."""
    whose = f"{output.path.resolve()}\n{submissions.this_user()}"
    return f"headsweep.standby.{hashlib.sha256(whose.encode()).hexdigest()[:12]}"


def pending(output: OutputFolder) -> str | None:
    """Return the number of the one that is pending; None without one, or without an answer of the cluster."""
    lines = cluster.ask("squeue", "--noheader", "--states=PENDING", "--format=%A", f"--name={name_in(output)}")
    return lines[0].strip() if lines else None


def is_active(output: OutputFolder) -> bool:
    """Return whether there is one that is pending, or submits jobs at the moment."""
    return bool(cluster.ask("squeue", "--noheader", "--states=PENDING,RUNNING", f"--name={name_in(output)}"))


def cancel(output: OutputFolder) -> None:
    """Cancel the one that is pending, if there is one."""
    cluster.ask("scancel", "--state=PENDING", f"--name={name_in(output)}")
