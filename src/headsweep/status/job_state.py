"""The state of a job in a cluster, and how it is shown."""

from __future__ import annotations

from dataclasses import dataclass

UNREACHABLE = "UNREACHABLE"  # state of all jobs while the cluster does not answer; no state of SLURM's
HIDDEN = "HIDDEN"  # state of another user's job where the cluster shows users their own jobs only
ACTIVE = frozenset(
    {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "REQUEUED", "SUSPENDED", "REQUEUE_HOLD", UNREACHABLE, HIDDEN}
)
HELD = "launch failed requeued held"  # reason of a job that could not be started
# Ordinary reasons of pending jobs, which are not shown.
ORDINARY = frozenset({"", "Priority", "Resources", "JobArrayTaskLimit", "Dependency", "BeginTime", "Cleaning"})

# Of a job that was not launched.
NO_OUTPUT = (
    "perhaps the node could not open its output: paths.output must be on a file system that all nodes share, "
    "and stay there while jobs are pending"
)


def more_memory(mebibytes: int | None) -> str:
    """Return what to ask for where that much memory on each node, None: the default, did not suffice: twice as much."""
    had, more = (f"{mebibytes} MiB of", -(-2 * mebibytes // 1024)) if mebibytes else ("the default", 16)
    return f"its job had {had} memory; ask for more, e.g. hydra.launcher.memory={more}GB, or in hydra.launcher.needs"


@dataclass(frozen=True)
class JobState:
    """The state of a job."""

    job: str  # 12, or 12_3 for element 3 of array 12
    state: str  # SLURM's, e.g. PENDING; or UNREACHABLE or HIDDEN; or GONE if the cluster does not know the job
    reason: str = ""  # why it is pending, or how it ended
    name: str = ""  # its name in the cluster
    where: str = ""  # its nodes, and how long it has run there as DAYS-HOURS:MINUTES:SECONDS

    @property
    def is_active(self) -> bool:
        """Whether it runs, or will."""
        return self.state in ACTIVE

    @property
    def is_held(self) -> bool:
        """Whether SLURM itself holds it, e.g. as its node died while it was starting: it waits until it is released."""
        return self.is_active and self.reason == HELD

    @property
    def was_not_launched(self) -> bool:
        """Whether its node could not start it, as when it cannot open the file of its output."""
        return any(cause in self.reason.split(", ") for cause in ("signal 53", "JobLaunchFailure"))

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self.state == "RUNNING"

    def __str__(self) -> str:
        if self.is_running:
            return f"job {self.job} is running"
        if self.state == "COMPLETING":
            return f"job {self.job} is completing"
        if self.is_active:
            waits = f": {self.reason}" if self.reason not in ORDINARY else ""
            held = f"; `headsweep retry`, or `scontrol release {self.job}`, lets it start" if self.is_held else ""
            return f"job {self.job} is {self.state.lower()}{waits}{held}"
        end = "is unknown to the cluster" if self.state == "GONE" else f"ended: {self.state}"
        reason = f" ({self.reason})" if self.reason else ""
        more = " with more time" if self.state == "TIMEOUT" else ""
        return f"job {self.job} {end}{reason}; `headsweep retry` submits the run again{more}"
