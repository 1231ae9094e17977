#!/usr/bin/env bash
# Train on several machines: start this on each of them, with the same words.
#
#   FIRST=gpu1.example.org MACHINES=2 GPUS=4 tools/cluster/machines.sh \
#       --data /shared/FashionAI --run /shared/runs/two_machines
#
# All need agman, the same data, and the run folder on a disk that they share.
# After a failure start it again, on as many machines as are left.
set -eu

: "${FIRST:?set it to the name of one of the machines, as the others know it}"
: "${MACHINES:=2}" # nothing begins before so many have called
: "${GPUS:=gpu}"   # processes on this machine: a number, or gpu for one on each GPU
: "${PORT:=29500}" # free on the first machine, open to the others
: "${JOB:=agman}"  # keeps two trainings apart that meet at the same port

# The lone -- keeps torchrun from taking --run for an option of its own.
exec torchrun \
    --nnodes "$MACHINES" --nproc-per-node "$GPUS" \
    --rdzv-backend c10d --rdzv-endpoint "$FIRST:$PORT" --rdzv-id "$JOB" \
    -m -- agman.cli train "$@"
