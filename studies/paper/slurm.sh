#!/usr/bin/env bash
#SBATCH --job-name=sagd
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --output=studies/paper/artifacts/slurm-%A_%a.log
# One setting a task, in a clone that all nodes see. First, once: the data and the noise
# (`cd studies/paper; dvc repro encode@mnist`, ...).
#   sbatch --array=0-$(($(python -m studies.plan --stages . | wc -l) - 1)) studies/paper/slurm.sh
# A task that was cut off resumes when it is submitted again; afterwards `cd studies/paper; dvc repro -s paper`.
# On NFS first `dvc config --local core.hardlink_lock true` in studies/paper. To share a cache with other clones,
# `dvc cache dir --local /shared/dvc` in each: what one has made is then checked out, not run, in the others.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
export SAGD_SCRATCH=${SAGD_SCRATCH:-$PWD/paper/artifacts/scratch}
name=$(python -m studies.plan --stages . | sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" | cut -d' ' -f3)
[ -n "$name" ] || { echo "no setting has the number $SLURM_ARRAY_TASK_ID" >&2; exit 1; }
cd studies/paper && exec dvc --wait-for-lock repro --quiet --single-item "train@$name" "measure@$name"
