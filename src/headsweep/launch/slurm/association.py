"""The limit on the jobs of a user in the queue, MaxSubmitJobs, where the accounting of a cluster has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.status import cluster, submissions

FIELDS = "DefaultAccount,Account,Cluster,Partition,MaxSubmitJobs"


def room(settings: SlurmConfig, config: Mapping[str, str]) -> int | None:
    """Return how many more jobs the user's association lets into the queue; None: no limit, or none that is known.

    Limits of a QOS or of a whole account are not asked for: sbatch refuses what exceeds them.

    Args:
        settings: of the jobs.
        config: of the cluster.
    """
    if "limits" not in config.get("AccountingStorageEnforce", ""):
        return None
    words = ("show", "user", submissions.this_user(), "withassoc", f"format={FIELDS}")
    rows = [line.split("|") for line in cluster.ask("sacctmgr", "--noheader", "--parsable2", *words) or ()]
    rows = [row for row in rows if len(row) == len(FIELDS.split(",")) and row[2] == config.get("ClusterName")]
    account = settings.account or (rows[0][0] if rows else "")
    limit = _limit([row[1:] for row in rows if row[1] == account], settings.partition or "")
    queued = None if limit is None else cluster.ask("squeue", "--me", "--array", "--noheader", "--format=%a|%T")
    if limit is None or queued is None:
        return None
    jobs = [line.split("|") for line in queued]
    return max(0, limit - sum(job[0] == account and job[-1] != "COMPLETING" for job in jobs))


def _limit(rows: Sequence[Sequence[str]], partition: str) -> int | None:
    """Return the limit from rows (account, cluster, partition, limit): that of the partition before that of all."""
    limits = {row[2]: row[3] for row in rows}
    found = limits.get(partition, limits.get("", ""))
    return int(found) if found.isdecimal() else None
