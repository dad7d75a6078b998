"""Memory and time of jobs from the records of finished runs: `hydra.launcher.from_records`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.launch.slurm.partition import time_limit
from headsweep.plan.past_needs import Kind, PastNeed, PastNeeds
from headsweep.text import plural, span
from headsweep.tracking.run_folder import RunFolder

Configs = Mapping[RunFolder, Mapping[str, Any]]

# Asked for beyond what runs have used, which does not include imports, the data and the last evaluation.
MEMORY_FACTOR, MORE_GIB = 1.25, 1
TIME_FACTOR, MORE_MINUTES = 1.5, 5
TIME_STEP = 5  # minutes


@dataclass(frozen=True)
class Recorded:
    """What a run asks for because of what others have used."""

    reason: str
    resources: Mapping[str, int | str] = field(default_factory=dict)  # keys of the launcher; empty without records


def recorded_needs(
    runs: Sequence[RunFolder], settings: SlurmConfig, configs: Configs | None = None
) -> dict[RunFolder, Recorded]:
    """Return what runs ask for by records of finished ones with steps of equal cost; empty without `from_records`.

    Args:
        runs: of one sweep.
        settings: of the sweep; what its `needs` set stays.
        configs: of the runs; None: they are in their folders.
    """
    if not settings.from_records or not runs:
        return {}
    past = PastNeeds(runs[0].output.path)
    found: dict[RunFolder, Recorded] = {}
    for run in runs:
        config = configs[run] if configs else run.record().config
        own, fixed = settings.of_run(config), settings.needed(config)
        keys = [key for key in settings.from_records if key not in fixed]
        need = past.of(Kind.of(config, own.gpus > 0, own.ranks)) if keys else None
        if need:
            found[run] = _recorded(run, config, own, keys, need)
        elif keys:
            found[run] = Recorded(f"no run of this cost has finished {_place(own)}")
    return _within_limits(found, settings)


def described(found: Mapping[RunFolder, Recorded], settings: SlurmConfig) -> list[str]:
    """Return a line for all runs that ask for the same because of the same."""
    counts = Counter((_words(it.resources or _usual(settings)), it.reason) for it in found.values())
    return [f"{plural(count, 'run')}: {words} ({reason})" for (words, reason), count in counts.items()]


def _recorded(
    run: RunFolder, config: Mapping[str, Any], settings: SlurmConfig, keys: Sequence[str], need: PastNeed
) -> Recorded:
    seconds = need.seconds_left(run, config)
    used: list[str] = []
    resources: dict[str, int | str] = {}
    if "memory" in keys and need.memory_gib is not None:
        used.append(f"{need.memory_gib:.1f} GiB")
        resources["memory"] = _memory(need.memory_gib, settings)
    if "time" in keys:
        used.append(f"{span(seconds)} a run")
        resources["time"] = _minutes(seconds, settings)
    which = f"{plural(need.runs, 'finished run')} of this cost {_place(settings)}"
    if not used:
        return Recorded(f"{which} recorded no memory")
    return Recorded(f"by {which}: {', '.join(used)}", resources)


def _within_limits(found: dict[RunFolder, Recorded], settings: SlurmConfig) -> dict[RunFolder, Recorded]:
    """Return the same with no more time than the partition allows: a job that does not suffice goes on, requeued."""
    longest = max((int(it.resources.get("time", 0)) for it in found.values()), default=0)
    limit = time_limit(settings) if longest else None
    if limit is None or longest <= limit:
        return found
    return {
        run: Recorded(it.reason, {**it.resources, "time": limit}) if int(it.resources.get("time", 0)) > limit else it
        for run, it in found.items()
    }


def _memory(gib: float, settings: SlurmConfig) -> str:
    """Return the memory of a job on each node, of whose processes each takes so much."""
    processes = settings.tasks if settings.distributed else settings.asked["slots"]
    return f"{_rounded(MEMORY_FACTOR * gib * processes + MORE_GIB)}GB"


def _minutes(seconds: float, settings: SlurmConfig) -> int:
    """Return the time of a job whose runs take so much each."""
    one_after_the_other = -(-settings.runs_per_job // settings.asked["slots"])
    needed = TIME_FACTOR * one_after_the_other * seconds / 60 + MORE_MINUTES + settings.warning / 60
    return TIME_STEP * _rounded(needed / TIME_STEP)


def _rounded(value: float) -> int:
    """Round up to 1, 2, ..., 8, 10, 12, 14, 16, 20, ..., so that similar runs ask for the same."""
    whole = math.ceil(value)
    step = 1 << max(0, whole.bit_length() - 3)
    return -(-whole // step) * step


def _usual(settings: SlurmConfig) -> dict[str, int | str]:
    given: dict[str, int | str | None] = {key: getattr(settings, key) for key in settings.from_records}
    return {key: "null" if value is None else value for key, value in given.items()}


def _words(resources: Mapping[str, int | str]) -> str:
    return " ".join(f"{key}={value}" for key, value in sorted(resources.items()))


def _place(settings: SlurmConfig) -> str:
    place = "on a GPU" if settings.gpus else "on CPUs"
    return place if settings.ranks == 1 else f"on {settings.ranks} {'GPUs' if settings.gpus else 'CPUs'}"
