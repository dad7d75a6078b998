"""What puts a job back into the queue when its processes have ended."""

from __future__ import annotations

# Exit code of a process whose job is to be requeued: that of srun is the highest of all processes.
REQUEUE = 200
RETRY_SECONDS = 3  # between two attempts to requeue a job
REFUSALS = 10  # of a controller that answers, after which a job is no longer requeued


def last_lines(requeues: int, command: str) -> list[str]:
    """Return shell lines for the end of a job: requeue it if it asks for it (REQUEUE) or was killed, else do `command`.

    It is not where SIGTERM (143) ended its processes: SLURM sends it to cancel, requeue or preempt a job, and srun
    after failures. A controller that is away or too busy to answer is asked until the job itself is killed, one that
    refuses a few times. One element of an array has the number of the whole array, which alone would mean all of them.
    """
    return [
        "code=$?",
        "job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}",
        f"if [ $code -ge 128 ] && [ $code -ne 143 ] && [ ${{SLURM_RESTART_COUNT:-0}} -lt {requeues} ]; then",
        f"  refusals={REFUSALS}",
        "  while [ $refusals -gt 0 ]; do",
        "    if state=$(squeue --noheader --job $job --format %T); then",
        '      [ "$state" = RUNNING ] || break  # cancelled, or requeued already',
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
