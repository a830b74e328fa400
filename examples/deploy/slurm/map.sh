#!/bin/bash
# A task of a job array: runs a handler over one part of the input, and goes on where it ended when the
# task is queued again.
#
#   split --number=l/8 --numeric-suffixes --suffix-length=1 readings.txt part.
#   sbatch --array=0-7 map.sh ./handler
#   cat reply.?                              # in the order of the input
#
#SBATCH --job-name=map
#SBATCH --output=map.%a.log
#SBATCH --open-mode=append
#SBATCH --cpus-per-task=1
#SBATCH --time=01:00:00
# A minute before the time is over, at least, `map` is asked to end.
#SBATCH --signal=B:TERM@60
#SBATCH --requeue

part=$SLURM_ARRAY_TASK_ID

# exec: the signal is for the job's first process alone. env: scancel and scontrol requeue send SIGTERM to
# all processes of the job, and a handler that it ends could not finish its item.
exec faas-worker map --processes "$SLURM_CPUS_PER_TASK" \
    --input "part.$part" --output "reply.$part" --job-log "log.$part" --resume \
    -- env --ignore-signal=TERM "$@"
