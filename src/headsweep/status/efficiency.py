"""What the jobs of a sweep have used of what they asked for, in lines of text: `headsweep status --efficiency`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from headsweep.errors import UserError
from headsweep.status import submissions
from headsweep.status.find import find_sweep
from headsweep.status.submissions import Job
from headsweep.status.usage import Usage, usage_of
from headsweep.text import aligned, one_line, plural, span

HEADINGS = ("ARRAY", "JOBS", "WAITED", "RAN", "RESTARTS", "CPUS", "MEMORY", "GPU", "GPU HOURS")
UNKNOWN = "-"
MARGIN = 1.25  # of the memory and the CPUs that are advised, over what was used
TIME_MARGIN = 1.5
WASTE = 0.6  # a resource of which no larger share is needed is advised to be lowered
FULL = 0.95  # from this share of the memory on, the next run may exceed it

Jobs = Mapping[Job, Usage]  # of one array: they asked for the same


def show(name: str | None, output: Path) -> str:
    """Return the efficiency of the jobs of a sweep (see `find_sweep`), or of the latest.

    Raises:
        UserError: there is no such sweep, or no job of it has started.
        Damaged: a record of submitted jobs is not as it was written.
    """
    sweep = find_sweep(name or "latest", output)
    jobs = submissions.jobs(sweep)
    if not jobs:
        raise UserError(f"--efficiency: {sweep.name} was submitted to no cluster; this is for hydra/launcher=slurm")
    used = usage_of(jobs)
    if not used:
        raise UserError(
            f"--efficiency: no job of {sweep.name} has started yet; `headsweep status {sweep.name}` shows why"
        )
    arrays: dict[tuple[str, str], dict[Job, Usage]] = {}
    for job, usage in used.items():
        arrays.setdefault((job.token, job.array), {})[job] = usage
    lines = [f"{sweep.name}: {_total(used)}", "", aligned([HEADINGS, *map(_row, arrays.values())])]
    advice = [line for array in arrays.values() if (line := _advice(array))]
    return "\n".join([*map(one_line, lines[:2]), lines[2], *[""] * bool(advice), *advice])


def _total(jobs: Jobs) -> str:
    ran = sum(usage.ran for usage in jobs.values())
    restarts = sum(usage.restarts for usage in jobs.values())
    cpu_hours = sum(usage.ran * _on_all_nodes(job, "cpus") for job, usage in jobs.items()) / 3600
    return (
        f"{plural(len(jobs), 'job')} ran {span(ran)}, {plural(restarts, 'restart')}, {_gpu_hours(jobs):.1f} GPU hours, "
        f"{cpu_hours:.1f} CPU hours"
    )


def _row(jobs: Jobs) -> tuple[str, ...]:
    first, used = next(iter(jobs)), list(jobs.values())
    memory = _most(usage.memory for usage in used)
    asked_memory = _most(usage.asked_memory for usage in used)
    return (
        first.array,
        str(len(jobs)),
        span(statistics.median(usage.waited for usage in used)),
        span(sum(usage.ran for usage in used)),
        str(sum(usage.restarts for usage in used)),
        f"{_of(_most(usage.cpus for usage in used), '.1f')} of {_of(first.asked.get('cpus'), 'd')}",
        f"{_of(_gib(memory), '.1f')} of {_of(_gib(asked_memory), '.1f').removesuffix('.0')} GB",
        _gpu(used),
        f"{_gpu_hours(jobs):.1f}",
    )


def _gpu(used: Sequence[Usage]) -> str:
    busy, memory = _most(usage.gpu for usage in used), _gib(_most(usage.gpu_memory for usage in used))
    parts = [_of(busy, ".0%"), f"{_of(memory, '.1f')} GB"]
    return ", ".join(part for part in parts if not part.startswith(UNKNOWN)) or UNKNOWN


def _advice(jobs: Jobs) -> str | None:
    """Return a line about what the jobs of an array could ask for instead; None if they ask for what they need."""
    first, used = next(iter(jobs)), list(jobs.values())
    parts = _too_little(used)
    if all(usage.is_finished for usage in used):  # others may come to need more
        parts += [
            *_memory_advice(used),
            *_cpu_advice(first, used),
            *_gpu_advice(first, used),
            *_time_advice(first, used),
        ]
    return f"{first.array}: {'; '.join(parts)}" if parts else None


def _too_little(used: Sequence[Usage]) -> list[str]:
    peak, asked = _most(usage.memory for usage in used), _most(usage.asked_memory for usage in used)
    return [f"memory={_enough(peak)}GB would be safer"] if peak and asked and peak > FULL * asked else []


def _memory_advice(used: Sequence[Usage]) -> list[str]:
    peak, asked = _most(usage.memory for usage in used), _most(usage.asked_memory for usage in used)
    is_wasted = peak and asked and _enough(peak) * 1024 <= WASTE * asked
    return [f"memory={_enough(peak)}GB would do"] if peak and is_wasted else []


def _enough(mebibytes: float) -> int:
    """Return the GB to ask for where so much was used."""
    return math.ceil(MARGIN * mebibytes / 1024)


def _cpu_advice(job: Job, used: Sequence[Usage]) -> list[str]:
    busy, asked = _most(usage.cpus for usage in used), job.asked.get("cpus", 0)
    enough = max(1, math.ceil(MARGIN * (busy or 0)))
    return [f"cpus={enough} would do"] if busy is not None and enough <= WASTE * asked else []


def _gpu_advice(job: Job, used: Sequence[Usage]) -> list[str]:
    is_unused = job.asked.get("gpus") and all(usage.trained_on_cpu for usage in used)
    return ["gpus=0 would do, as the runs trained on the CPU"] if is_unused else []


def _time_advice(job: Job, used: Sequence[Usage]) -> list[str]:
    """Shorter jobs start sooner, in gaps before longer ones."""
    longest, asked = max(max(usage.periods) for usage in used) / 60, job.asked.get("time", 0)
    enough = 10 * math.ceil(TIME_MARGIN * longest / 10)
    is_wasted = not any(usage.restarts for usage in used) and enough <= WASTE * asked
    return [f"time={enough} would do"] if is_wasted else []


def _gpu_hours(jobs: Jobs) -> float:
    return sum(usage.ran * _on_all_nodes(job, "gpus") for job, usage in jobs.items()) / 3600


def _on_all_nodes(job: Job, resource: str) -> int:
    return job.asked.get(resource, 0) * job.asked.get("nodes", 1)


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _gib(mebibytes: float | None) -> float | None:
    return None if mebibytes is None else mebibytes / 1024


def _of(value: float | None, form: str) -> str:
    return UNKNOWN if value is None else format(value, form)
