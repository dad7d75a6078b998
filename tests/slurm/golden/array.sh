#!/bin/bash

# Parameters
#SBATCH --array=0-2%2
#SBATCH --cpus-per-task=1
#SBATCH --hold
#SBATCH --job-name=SWEEP.TOKEN
#SBATCH --mem=500MB
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=OUTPUT/sweeps/SWEEP/slurm/jobs/TOKEN/%A_%a_0_log.out
#SBATCH --partition=main
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=240
#SBATCH --wckey=submitit

# setup
module load cuda
code=$?; [ $code -eq 0 ] || { echo "headsweep: hydra.launcher.setup[0] failed with exit code $code" >&2; exit $code; }
export PYTHONPATH=OUTPUT/sweeps/SWEEP/slurm/code/DIGEST/src${PYTHONPATH:+:$PYTHONPATH}
export PYTHONSAFEPATH=1
! ls OUTPUT/sweeps/*/slurm/waiting-USER.json >/dev/null 2>&1 || PYTHON -m headsweep.launch.slurm.window OUTPUT/sweeps/SWEEP starting &

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output OUTPUT/sweeps/SWEEP/slurm/jobs/TOKEN/%A_%a_%t_log.out --kill-on-bad-exit=1 sh -c 'trap "" USR2; exec "$0" "$@"' PYTHON -u -m submitit.core._submit OUTPUT/sweeps/SWEEP/slurm/jobs/TOKEN


# teardown
code=$?
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}
stopped=OUTPUT/sweeps/SWEEP/slurm/jobs/TOKEN/${job}_stopped${SLURM_RESTART_COUNT:-0} killed=OUTPUT/sweeps/SWEEP/slurm/jobs/TOKEN/${job}_killed
[ ! -e "$stopped" ] || code=200
if [ $code -ge 128 ] && [ $code -ne 143 ] && [ ${SLURM_RESTART_COUNT:-0} -lt 20 ]; then
  refusals=10
  while [ $refusals -gt 0 ]; do
    if state=$(squeue --noheader --job $job --format %T); then
      [ "$state" = RUNNING ] || break  # cancelled, or requeued already
      [ $code -eq 200 ] || [ $refusals -lt 10 ] || echo $code >> "$killed"
      if [ $code -ne 200 ] && [ $(wc -l < "$killed") -ge 3 ]; then
        echo "headsweep: killed 3 times in a row before an epoch was complete, perhaps for lack of memory: its job had 500 MiB of memory; ask for more, e.g. hydra.launcher.memory=1GB, or in hydra.launcher.needs; not requeued (hydra.launcher.attempts=3)"
        break
      fi
      echo "headsweep: ended with exit code $code; to be requeued"
      scontrol requeue $job && exit $code
      refusals=$((refusals - 1))
    fi
    sleep 3
  done
fi
[ $code -ge 128 ] || ! ls OUTPUT/sweeps/*/slurm/waiting-USER.json >/dev/null 2>&1 || PYTHON -m headsweep.launch.slurm.window OUTPUT/sweeps/SWEEP ending
exit $code

# job 0: seqpool1-cct_2_3x2-digits-seed0
# job 1: seqpool1-cct_2_3x2-digits-seed1
# job 2: seqpool1-cct_2_3x2-digits-seed2
