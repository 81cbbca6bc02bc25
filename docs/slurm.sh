#!/bin/bash
#SBATCH --job-name=rljax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@60
#SBATCH --requeue
# Usage: sbatch docs/slurm.sh dppo Pendulum-v1 --num-envs 512
# A job that runs out of time saves a checkpoint and exits. When SLURM requeues it, it resumes.
set -euo pipefail
run_dir="runs/slurm-${SLURM_JOB_ID}"
if [ -f "$run_dir/config.toml" ]; then
    exec srun --kill-on-bad-exit=1 rljax resume "$run_dir" --distributed
fi
exec srun --kill-on-bad-exit=1 rljax train "$@" --distributed --run-dir "$run_dir"
