"""Jobs whose command was killed before it recorded their number."""

from __future__ import annotations

from headsweep.errors import UserError
from headsweep.status import cluster, submissions
from headsweep.status.submissions import Job
from headsweep.tracking.output_folder import OutputFolder


def recover(output: OutputFolder) -> None:
    """Record the numbers of such jobs or, if a pickle with the runs of one is missing, cancel them.

    Call it under the lock of submission: a command that submits now has no number yet either.

    Raises:
        UserError: the cluster does not cancel them.
    """
    unknown: dict[str, list[Job]] = {}
    for job in submissions.jobs_in(output):
        if not job.array and job.user == submissions.this_user():
            unknown.setdefault(job.name, []).append(job)
    for name, jobs in unknown.items():
        if array := _array(jobs):
            submissions.complete(jobs[0].sweep, jobs[0].token, array)
        elif cluster.ask("scancel", f"--name={name}") is None:
            raise UserError(f"scancel --name={name} failed; a command was killed while it submitted these jobs")
        else:
            submissions.forget(jobs[0].sweep, jobs[0].token)


def _array(jobs: list[Job]) -> str | None:
    """Return the number by which submitit has named the pickles of all jobs, one file each; None if some lack one."""
    pickles = list(submissions.logs(jobs[0].sweep, jobs[0].token).glob("[0-9]*_submitted.pkl"))
    return pickles[0].name.partition("_")[0] if len(pickles) == len(jobs) else None
