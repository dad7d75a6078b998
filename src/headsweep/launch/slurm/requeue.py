"""What puts a job back into the queue when its processes have ended."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from headsweep.config.launcher.slurm import SlurmConfig
from headsweep.launch.launcher import Notify
from headsweep.status import cluster
from headsweep.status.job_state import more_memory
from headsweep.tracking.run_folder import RunFolder
from headsweep.tracking.typed_files import Damaged

# Exit codes of a process whose job is to be requeued; that of srun is, as a rule, the highest of all processes.
REQUEUE = 200
LOST_PEER = 201  # another process of the job has ended, perhaps killed
RETRY_SECONDS = 3  # between two attempts to requeue a job
REFUSALS = 10  # of a controller that answers, after which a job is no longer requeued


def last_lines(settings: SlurmConfig, folder: Path, command: str) -> list[str]:
    """Return shell lines for the end of a job: requeue it if it asks for it or was killed, else do `command`.

    It is not requeued where SIGTERM (143) ended its only process: SLURM sends it to cancel, requeue or preempt a job.
    Of several processes, srun sends it to those that are left when one has ended; then the state of the job decides.
    Nor is it if its processes were killed `attempts` times in a row without progress, as they are when the memory does
    not suffice. A controller that is away or too busy to answer is asked until the job itself is killed, one that
    refuses a few times. One element of an array has the number of the whole array, which alone would mean all of them.

    Args:
        settings: of the job.
        folder: of the files of the job's submission.
        command: a shell command.
    """
    attempts, by_slurm = settings.attempts, "[ $code -ne 143 ] && " if settings.ranks == 1 else ""
    place = shlex.quote(str(folder))
    advice = more_memory(settings.asked.get("memory"))
    enough = f"killed {attempts} times in a row before an epoch was complete, perhaps for lack of memory: {advice}"
    limit = [
        f'      [ $code -eq {REQUEUE} ] || [ $refusals -lt {REFUSALS} ] || echo $code >> "$killed"',
        f'      if [ $code -ne {REQUEUE} ] && [ $(wc -l < "$killed") -ge {attempts} ]; then',
        f'        echo "headsweep: {enough}; not requeued (hydra.launcher.attempts={attempts})"',
        "        break",
        "      fi",
    ]
    return [
        "code=$?",
        "job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}",
        f"stopped={place}/${{job}}_stopped${{SLURM_RESTART_COUNT:-0}} killed={place}/${{job}}_killed",
        # After a process was killed for lack of memory, the exit code of srun is 1, whatever became of the others.
        f'[ ! -e "$stopped" ] || code={REQUEUE}',
        f"if [ $code -ge 128 ] && {by_slurm}[ ${{SLURM_RESTART_COUNT:-0}} -lt {settings.requeues} ]; then",
        f"  refusals={REFUSALS}",
        "  while [ $refusals -gt 0 ]; do",
        "    if state=$(squeue --noheader --job $job --format %T); then",
        '      [ "$state" = RUNNING ] || break  # cancelled, or requeued already',
        *(limit if attempts is not None else []),
        '      echo "headsweep: ended with exit code $code; to be requeued"',  # before, as it ends this script
        "      scontrol requeue $job && exit $code",
        "      refusals=$((refusals - 1))",
        "    fi",
        f"    sleep {RETRY_SECONDS}",
        "  done",
        "fi",
        f"[ $code -ge 128 ] || {command}",
        "exit $code",
    ]


def ask_for_requeue(folder: Path) -> None:
    """Ask for the requeue of this job, beside the exit code REQUEUE; `folder` has the files of its submission."""
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    with contextlib.suppress(OSError):  # the exit code alone suffices, as a rule
        (folder / f"{cluster.this_job()}_stopped{restarts}").touch()


def forget_kills(folder: Path, runs: Sequence[RunFolder], notify: Notify) -> Notify:
    """Return a `notify` that forgets how often the processes of this job were killed, once a run has made progress.

    Args:
        folder: as in `ask_for_requeue`.
        runs: of the job.
        notify: is called, too.
    """
    before = {run.path: _epoch(run) for run in runs}

    def notify_and_forget(run: RunFolder) -> None:
        if _epoch(run) > before[run.path]:
            (folder / f"{cluster.this_job()}_killed").unlink(missing_ok=True)
        notify(run)

    return notify_and_forget


def _epoch(run: RunFolder) -> int:
    with contextlib.suppress(Damaged):  # training reports it
        return max((entry.epoch for entry in run.metrics_log.last(1)), default=0)
    return 0
