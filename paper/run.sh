#!/usr/bin/env bash
# The study through DVC, several settings at a time: paper/run.sh JOBS [PATTERN]. PATTERN (an extended regular
# expression) chooses among the names, such as '^mnist'. To resume after an interruption, run it again. GPUs are dealt
# out to the jobs.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-1} pattern=${2:-.}
GPUS=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
export GPUS
chosen=$(python -m pipeline.plan --stages "$pattern")  # lines of data set, group, stage
[ -n "$chosen" ] || { echo "no setting matches $pattern" >&2; exit 1; }
cd paper
failed=0
# Without its data, or its noise, none of a group's settings can run; the others can.
for group in $(cut -d' ' -f2 <<<"$chosen" | sort -u); do
  if dvc repro --quiet "encode@$group"; then
    ready+=$(awk -v group="$group" '$2 == group {print $3}' <<<"$chosen")$'\n'
  else
    failed=1
  fi
done
# One xargs slot a GPU, in turn; with none, the variable stays as it is. After a status of 255, which is dvc's, xargs
# would start nothing more.
xargs -P "$jobs" --process-slot-var=SLOT -I{} bash -c '
  if [ "$GPUS" -gt 0 ]; then export CUDA_VISIBLE_DEVICES=$((SLOT % GPUS)); fi
  dvc --wait-for-lock repro --quiet --single-item "train@$1" "measure@$1" || exit 1' setting {} <<<"${ready-}" || failed=1
dvc repro --quiet --single-item paper  # of what is there
exit $failed
