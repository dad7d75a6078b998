"""More time for runs whose last job has ended because its time did."""

from __future__ import annotations

from collections.abc import Sequence

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.launch.slurm.grouping import Group
from headsweep.launch.slurm.partition import time_limit
from headsweep.status import job_record, queue, submissions
from headsweep.status.submissions import Job
from headsweep.text import plural
from headsweep.tracking.run_folder import RunFolder


def minutes_of(groups: Sequence[Group]) -> dict[RunFolder, int]:
    """Return the time of the next job of each run that timed out and asks for no more than last time.

    It is `time_factor` times that of the last job, at most what the partition allows; a line is printed about it.
    """
    limited = [group for group in groups if group.settings.time_factor > 1]
    last = _last_jobs([run for group in limited for run in group.runs])
    out = _out_of_time(set(last.values()))
    found: dict[RunFolder, int] = {}
    for group in limited:
        by_minutes: dict[int, list[RunFolder]] = {}
        for run in group.runs:
            if run in last and last[run] in out:
                by_minutes.setdefault(_minutes(last[run], group.settings), []).append(run)
        for minutes, runs in by_minutes.items():
            if minutes >= group.settings.time:
                found |= dict.fromkeys(runs, _more(minutes, len(runs), group.settings))
    return found


def _out_of_time(jobs: set[Job]) -> set[Job]:
    recorded = {job for job in jobs if job_record.read(job.record).ran_out_of_time}
    states = queue.states_of(jobs - recorded)
    return recorded | {job for job, state in states.items() if state.state == "TIMEOUT"}


def _more(minutes: int, count: int, settings: SlurmConfig) -> int:
    """Return the next time of runs that timed out after some minutes; print it."""
    limit = time_limit(settings)
    more = min(settings.time_factor * minutes, limit or settings.time_factor * minutes)
    print(_line(count, minutes, more, limit))
    return max(more, minutes)


def _line(count: int, minutes: int, more: int, limit: int | None) -> str:
    before = f"{plural(count, 'run')} timed out after {minutes} minutes"
    if more <= minutes:
        return f"{before}, and the partition allows no more"
    which = " (the limit of the partition)" if more == limit else ""
    return f"{before} and {'gets' if count == 1 else 'get'} {more} minutes{which}"


def _last_jobs(runs: Sequence[RunFolder]) -> dict[RunFolder, Job]:
    found: dict[str, Job] = {}
    for output in {run.output.path: run.output for run in runs}.values():
        for job in submissions.jobs_in(output):
            found |= {run: job for run in job.runs if job.number}
    return {run: found[run.path.name] for run in runs if run.path.name in found}


def _minutes(job: Job, settings: SlurmConfig) -> int:
    """Return the time that a job had; that of the settings where it was not recorded."""
    return job.asked.get("time", settings.time)
