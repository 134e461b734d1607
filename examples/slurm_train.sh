#!/bin/bash
# Trains a recipe on several nodes, and goes on by itself when the job is put back into the queue.
#
#   sbatch examples/slurm_train.sh recipe.toml /shared/runs/mine [more options of `reed-protein train`]
#
# Not measured on many GPUs. Set nodes, GPUs, cores and time to what your cluster has; the run folder must be on a disk
# that all nodes see. Another domain: MODULE=reed_molecule sbatch ...
#SBATCH --job-name=reed
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=reed-%j.log
#SBATCH --signal=B:USR1@120

set -euo pipefail
recipe=$1
out=$2
shift 2

# Two minutes before the time limit the job asks for another turn; a preempted or failed one is requeued by SLURM.
trap 'scontrol requeue "$SLURM_JOB_ID"' USR1

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "${SLURM_GPUS_ON_NODE:-8}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$first:29500" \
    --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" \
    -m "${MODULE:-reed_protein}" train "$recipe" --out "$out" --device cuda "$@" &
wait $!
