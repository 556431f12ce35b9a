#!/usr/bin/env bash
# One process a node, with all of its GPUs; SLURM says where the others are.
#
#   sbatch --nodes=2 --gres=gpu:8 launch/slurm.sh --config=configs/pretrain.py --workdir=/shared/runs/pretrain
#
# Install once in an environment that all nodes see: pip install -e '.[cuda]'. The workdir must be on a shared file system.
# Two minutes before the time limit the run saves and the job is queued again, to go on there; where a job of higher
# priority takes its nodes, it saves and SLURM queues it again. scancel ends it; the same command goes on.
#SBATCH --job-name=ncjax
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

told= # SLURM itself ends this job: nothing to queue
trap 'told=1' TERM

distributed=()
if [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ]; then
  distributed=(--distributed)
fi
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # which srun does not take over by itself
# By default jax.distributed takes the one GPU that has the number of the task on its node.
# shellcheck disable=SC2016 # expanded on each node
srun bash -c '
  gpus=${SLURM_GPUS_ON_NODE:-$(nvidia-smi -L 2>/dev/null | wc -l)}
  if [ "${SLURM_JOB_NUM_NODES:-1}" -gt 1 ] && [ "$gpus" -gt 0 ]; then
    export JAX_LOCAL_DEVICE_IDS
    JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((gpus - 1)))
  fi
  exec python -m ncjax.main "$@"' ncjax "${distributed[@]}" "$@"
code=$?
if [ "$code" -eq 143 ] && [ -z "$told" ]; then
  exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
