#!/bin/bash
# perceiver under Open MPI: one process a GPU, on the machines of a hostfile.
#
#   launch/openmpi.sh hosts 8 experiments/fashion.py --steps 5000
#
# hosts: a line for each machine, such as "node1 slots=4". The first one is where the processes meet.
# mpirun ends all processes when one fails; the same command goes on from the last checkpoint.

set -euo pipefail
hosts=$1
processes=$2
shift 2

first=$(awk 'NF && $1 !~ /^#/ {print $1; exit}' "$hosts")
export JAX_COORDINATOR_ADDRESS=${JAX_COORDINATOR_ADDRESS:-$first:41211}

# Each process takes one GPU of its machine.
mpirun --hostfile "$hosts" -np "$processes" -x JAX_COORDINATOR_ADDRESS -x PATH \
  bash -c 'export CUDA_VISIBLE_DEVICES=$OMPI_COMM_WORLD_LOCAL_RANK; exec perceiver train "$@"' train "$@"
