#!/usr/bin/env bash
# One task a GPU node; jax.distributed reads the rest from SLURM.
#
#   sbatch --nodes=2 --gres=gpu:8 launch/slurm.sh --config=configs/pretrain.py --workdir=/shared/runs/pretrain
#
# Install once in an environment that all nodes see: pip install -e '.[cuda]'. The workdir must be on a shared file system.
# A job that is stopped at its time limit goes on when the same command is submitted again.
#SBATCH --job-name=ncjax
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --signal=INT@120
set -euo pipefail

distributed=()
if [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then
  distributed=(--distributed)
fi
srun python -m ncjax.main "${distributed[@]}" "$@"
