#!/usr/bin/env bash
# Trains on a GPU cluster under SLURM, one process a node.
#
#   NODES=4 GPUS=8 experiments/launch/slurm.sh \
#     --config=configs/bitnet_decoder.py:700M --workdir=$HOME/runs/700M
#
# JAX finds the other processes by SLURM's variables. SLURM sends SIGTERM before
# the time limit, which saves a checkpoint; the job is then requeued and resumes.
# DRY_RUN=1 prints the job instead.
set -euo pipefail

printf -v arguments '%q ' "$@"
job=$(
  cat <<JOB
#!/bin/bash
#SBATCH --job-name=bitnet_jax
#SBATCH --nodes=${NODES:-1}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=${GPUS:-8}
#SBATCH --cpus-per-task=${CPUS:-16}
#SBATCH --time=${TIME:-24:00:00}
#SBATCH --signal=TERM@120
#SBATCH --requeue
source "${VENV:-\$HOME/venv}/bin/activate"
cd "$PWD"
srun python experiments/train.py --multihost ${arguments% } ||
  { [ \$? -eq 143 ] && scontrol requeue "\$SLURM_JOB_ID"; }
JOB
)
if [ -n "${DRY_RUN:-}" ]; then
  printf '%s\n' "$job"
else
  sbatch <<<"$job"
fi
