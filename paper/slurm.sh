#!/usr/bin/env bash
#SBATCH --job-name=sagd
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --output=paper/artifacts/slurm-%A_%a.log
# One setting a task, in a clone that all nodes see. First, once: the data (`dvc repro paper/dvc.yaml:encode@mnist`, ...).
#   sbatch --array=0-$(($(dvc stage list paper/dvc.yaml --name-only | grep -c grid_train@) - 1)) paper/slurm.sh
# A task that was cut goes on when it is submitted again; afterwards `dvc repro -s paper/dvc.yaml:paper`.
# On NFS first `dvc config --local core.hardlink_lock true`. To share a cache with other clones,
# `dvc cache dir --local /shared/dvc` in each: what one has made is then checked out, not run, in the others.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
export SAGD_SCRATCH=${SAGD_SCRATCH:-$PWD/paper/artifacts/scratch}
name=$(dvc stage list paper/dvc.yaml --name-only | sed -n 's/.*grid_train@//p' | sed -n "$((SLURM_ARRAY_TASK_ID + 1))p")
[ -n "$name" ] || { echo "no setting has the number $SLURM_ARRAY_TASK_ID" >&2; exit 1; }
exec paper/setting.sh "$name"
