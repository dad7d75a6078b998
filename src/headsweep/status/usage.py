"""What jobs have used: from the accounting of a cluster that has one, else from the records of jobs and runs."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headsweep.status import cluster, job_record
from headsweep.status.submissions import Job
from headsweep.tracking.output_folder import OutputFolder
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.run_record import RunResult
from headsweep.tracking.typed_files import Damaged

FORMAT = "JobID,JobName,Submit,Start,ElapsedRaw,TotalCPU,AllocCPUS,ReqMem,MaxRSS,TRESUsageInAve"  # of sacct
_MIB = {"": 1 / 1024**2, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}


@dataclass(frozen=True)
class Usage:
    """What a job has used since it was submitted, over all its restarts; None: not known."""

    waited: float  # seconds in the queue
    periods: tuple[float, ...]  # seconds from each start to its end or requeue; empty: it has not started
    cpus: float | None = None  # CPU cores that were busy, on average
    memory: float | None = None  # peak, in MiB on a node
    asked_memory: float | None = None  # in MiB on a node
    gpu: float | None = None  # share of the time in which its GPUs were busy
    gpu_memory: float | None = None  # peak of a GPU, in MiB
    trained_on_cpu: bool = False  # whether all its finished runs were
    is_finished: bool = False  # whether all its runs are

    @property
    def ran(self) -> float:
        """Seconds that it ran."""
        return sum(self.periods)

    @property
    def restarts(self) -> int:
        """How often it was requeued and has started again."""
        return max(0, len(self.periods) - 1)


def usage_of(jobs: Sequence[Job]) -> dict[Job, Usage]:
    """Return what those jobs have used that have started."""
    accounted = _accounted(jobs)
    found = {job: accounted.get(job) or _recorded(job) for job in jobs if job.number}
    return {job: _with_results(job, it) for job, it in found.items() if it.periods}


def _accounted(jobs: Sequence[Job]) -> dict[Job, Usage]:
    known = {(job.name, job.number): job for job in jobs if job.number}
    arrays = sorted({job.array for job in jobs if job.array})
    lines = (
        cluster.ask("sacct", "--noheader", "--allusers", "--duplicates", "--parsable2", f"--format={FORMAT}",
                    f"--jobs={','.join(arrays)}")
        if arrays else None
    )  # fmt: skip
    rows: dict[Job, list[dict[str, str]]] = {}
    owner: Job | None = None
    for line in lines or ():
        row = dict(zip(FORMAT.split(","), line.split("|"), strict=False))
        if "." not in row["JobID"]:  # its steps follow
            owner = known.get((row.get("JobName", ""), row["JobID"]))
        if owner:
            rows.setdefault(owner, []).append(row)
    return {job: _of_rows(job, found) for job, found in rows.items()}


def _of_rows(job: Job, rows: Sequence[Mapping[str, str]]) -> Usage:
    """Return what a job has used from lines of sacct: one for each start, each followed by those of its steps."""
    starts = [row for row in rows if "." not in row["JobID"] and _int(row["Start"]) is not None]
    periods = tuple(float(_int(row["ElapsedRaw"]) or 0) for row in starts)
    seconds = sum(_cpu_seconds(row["TotalCPU"]) for row in starts)
    memory = max((size for row in rows if (size := _size(row.get("MaxRSS", "")))), default=None)
    busy = [int(it[1]) for row in rows if (it := re.search(r"gres/gpuutil=(\d+)", row.get("TRESUsageInAve", "")))]
    asked = re.fullmatch(r"([\d.]+[KMGT]?)([nc]?)", starts[-1]["ReqMem"]) if starts else None
    cores = (_int(starts[-1]["AllocCPUS"]) or 1) if asked and asked[2] == "c" else 1  # before SLURM 21
    return Usage(
        sum(max(0, (_int(row["Start"]) or 0) - (_int(row["Submit"]) or 0)) for row in starts),
        periods,
        cpus=seconds / sum(periods) / job.asked.get("nodes", 1) if sum(periods) and seconds else None,
        memory=memory,
        asked_memory=(_size(asked[1]) or 0) * cores or None if asked else None,
        gpu=max(busy) / 100 if busy else None,
    )


def _recorded(job: Job) -> Usage:
    """Return when a job ran from its own record.

    A period without an end is taken to last until the next one or, if it is the last, until the job printed something.
    """
    waited, ready, lasted = 0.0, job.submitted, []
    periods = job_record.read(job.record).periods
    for period, after in itertools.zip_longest(periods, periods[1:]):
        waited += max(0.0, period.started - ready)
        ready = period.ended or (after.started if after else max(period.started, _last_output(job)))
        lasted.append(ready - period.started)
    return Usage(waited, tuple(lasted))


def _last_output(job: Job) -> float:
    with contextlib.suppress(OSError):
        return job.log(job.number).stat().st_mtime
    return 0.0


def _with_results(job: Job, usage: Usage) -> Usage:
    """Add what the results of the job's runs have measured."""
    results = _results(job)
    slots = job.asked.get("slots", 1)
    peaks = sorted(
        (it.clock["peak_memory_gib"] * 1024 for it in results if "peak_memory_gib" in it.clock), reverse=True
    )
    on_gpu = [it.clock["peak_gpu_memory_gib"] * 1024 for it in results if "peak_gpu_memory_gib" in it.clock]
    sharing = -(-slots // max(1, job.asked.get("gpus", 0)))  # runs of one GPU
    return Usage(
        usage.waited,
        usage.periods,
        usage.cpus,
        usage.memory if usage.memory is not None else sum(peaks[:slots]) or None,
        job.asked.get("memory") or usage.asked_memory,
        usage.gpu,
        max(on_gpu) * sharing if on_gpu else None,
        is_finished=len(results) == len(job.runs),
        trained_on_cpu=bool(results) and all(it.environment.get("device", "").startswith("cpu") for it in results),
    )


def _results(job: Job) -> list[RunResult]:
    found = []
    for run in job.runs:
        with contextlib.suppress(Damaged):  # which `status` shows
            found.append(RunFolder(OutputFolder.containing(job.sweep).runs / run).result())
    return [result for result in found if result]


def _int(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _size(text: str) -> float | None:
    """Return the MiB of an amount such as 123456K; None for another text."""
    found = re.fullmatch(r"([\d.]+)([KMGT]?)", text)
    return float(found[1]) * _MIB[found[2]] if found else None


def _cpu_seconds(text: str) -> float:
    """Return the seconds of [DAYS-][HOURS:]MINUTES:SECONDS."""
    found = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):([\d.]+)", text)
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0,) * 4
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
