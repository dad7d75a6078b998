"""The limits of a partition."""

from __future__ import annotations

import re

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.status import cluster

_DAY = 24 * 60


def time_limit(settings: SlurmConfig) -> int | None:
    """Return the minutes that a partition allows: the one asked for, or the default; None: no limit, or unknown."""
    named = [f"--partition={settings.partition}"] if settings.partition else []
    lines = cluster.ask("sinfo", "--noheader", "--format=%P|%l", *named) or []
    limits = dict(line.split("|", 1) for line in lines if line.count("|") == 1)
    usual = [_parsed(limit) for name, limit in limits.items() if named or name.endswith("*")]
    known = [limit for limit in usual if limit is not None]
    return max(known) if known and len(known) == len(usual) else None


def _parsed(text: str) -> int | None:
    """Return the minutes of [DAYS-]HOURS:MINUTES:SECONDS or MINUTES:SECONDS; None for another text, e.g. infinite."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):\d+", text)
    return int(match[1] or 0) * _DAY + int(match[2] or 0) * 60 + int(match[3]) if match else None
