#!/usr/bin/env bash
# A batch script for Slurm: one run on all nodes of a job.
#
#   sbatch --nodes=2 launch/slurm.sh --config configs/mae_imagenet.py --workdir /shared/runs/mae
#   sbatch --nodes=2 --gres=gpu:8 --ntasks-per-node=8 launch/slurm.sh ...      one process a GPU
#   sbatch --nodes=2 --gres=gpu:8 --ntasks-per-node=1 launch/slurm.sh ...      one process a node
#
# Run it from the root of the project, in a folder that all nodes share; options before the script
# replace those below. Never --gpus-per-task: a process then sees one GPU only, and JAX looks for
# others. A job that is preempted, requeued, or loses a node is started again and continues. For
# more time than a job may have, submit the same command several times with --dependency=singleton:
# 120 s before the end of a job the run is saved, and the next job continues it.
#
#SBATCH --job-name=l2l_jax
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
#SBATCH --output=l2l_jax-%j.log
set -euo pipefail

# With one process a node JAX would take the first GPU only.
if [ "${SLURM_NTASKS_PER_NODE:-1}" = 1 ] && [ "${SLURM_GPUS_ON_NODE:-0}" -gt 1 ]; then
    JAX_LOCAL_DEVICE_IDS="$(seq -s, 0 $((SLURM_GPUS_ON_NODE - 1)))"
    export JAX_LOCAL_DEVICE_IDS
fi

# exec: a shell between Slurm and Python would end at SIGTERM, and Python with it.
exec srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" -m l2l_jax.main --distributed=auto "$@"
