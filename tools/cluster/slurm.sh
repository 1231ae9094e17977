#!/usr/bin/env bash
# Train on machines that SLURM gives out; submit it from the folder that holds tools/:
#
#   sbatch tools/cluster/slurm.sh --data /shared/FashionAI --run /shared/runs/slurm
#
# Most clusters also want --account, --partition, and a line that activates the environment.

#SBATCH --job-name=agman
#SBATCH --output=agman-%j.out
#SBATCH --time=24:00:00
#SBATCH --nodes=2
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
# One torchrun on each machine; it starts a process for each GPU.
#SBATCH --ntasks-per-node=1
# A job that lost a machine goes back into the queue, and goes on from its run folder.
#SBATCH --requeue
#SBATCH --open-mode=append

set -eu

FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MACHINES=$SLURM_JOB_NUM_NODES
GPUS=$SLURM_GPUS_ON_NODE
PORT=$((20000 + SLURM_JOB_ID % 10000)) # another one for each job
JOB=$SLURM_JOB_ID
export FIRST MACHINES GPUS PORT JOB

# Where one machine fails, the others are stopped too.
exec srun --kill-on-bad-exit=1 tools/cluster/machines.sh "$@"
