#!/usr/bin/env bash
# One stage of the study through DVC, from training to distances: paper/setting.sh NAME. Others may run beside it.
set -euo pipefail
cd "$(dirname "$0")/.."
for phase in grid_train grid_sample grid_evaluate; do
  dvc --wait-for-lock repro --quiet --single-item "paper/dvc.yaml:$phase@$1"
done
