"""How jobs ended, from the accounting of a cluster that has one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from headsweep.status import cluster
from headsweep.status.job_state import JobState


def ended(arrays: Sequence[str]) -> list[JobState]:
    """Return the states of the jobs of arrays, given by their numbers, of all users."""
    lines = cluster.ask("sacct", "--noheader", "--allusers", "--allocations", "--parsable2",
                 "--format=JobID,State,ExitCode,NodeList,JobName", f"--jobs={','.join(arrays)}")  # fmt: skip
    return [state for line in lines or () for state in _accounted(line)]


def _accounted(line: str) -> list[JobState]:
    jobs, state, code, nodes, job_name = line.split("|", 4)
    name, _, by = state.partition(" ")
    reasons = [by] * bool(by) + [f"exit code {code.partition(':')[0]}"] * (not code.startswith("0:"))
    reasons += [f"signal {code.partition(':')[2]}"] * (not code.endswith(":0"))
    reasons += [f"on {nodes}"] * (nodes != "None assigned")
    return [JobState(job, name, ", ".join(reasons), job_name) for job in _elements(jobs)]


def _elements(jobs: str) -> list[str]:
    """Return the jobs of a line: those that never started share one, e.g. 12_[0,3-5%2]."""
    array, _, rest = jobs.partition("_[")
    spans = re.findall(r"(\d+)(?:-(\d+))?", rest.partition("%")[0])
    return [f"{array}_{at}" for first, last in spans for at in range(int(first), int(last or first) + 1)] or [jobs]
