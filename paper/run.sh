#!/usr/bin/env bash
# The study through DVC, several stages at a time: paper/run.sh JOBS [PATTERN]. PATTERN (an extended regular expression)
# chooses among the names, such as '^mnist'. Interrupted, it goes on when called again. GPUs are dealt out to the jobs.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-1} pattern=${2:-.}
gpus=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
names=$(dvc stage list paper/dvc.yaml --name-only)

of() { sed -n "s/^\(paper\/dvc.yaml:\)\?$1@//p" <<<"$names"; }

settings=$(of grid_train | grep -E "$pattern") || { echo "no setting matches $pattern" >&2; exit 1; }
groups=$(of encode | while read -r group; do if grep -q "^$group\(_\|$\)" <<<"$settings"; then echo "$group"; fi; done)
for group in $groups; do
  dvc repro --quiet "paper/dvc.yaml:encode@$group"
done
# One xargs slot a GPU, in turn; with none, the variable stays as it is.
export GPUS=$gpus
failed=0
xargs -P "$jobs" --process-slot-var=SLOT -I{} bash -c '
  if [ "$GPUS" -gt 0 ]; then export CUDA_VISIBLE_DEVICES=$((SLOT % GPUS)); fi
  exec paper/setting.sh "$1"' setting {} <<<"$settings" || failed=$?
dvc repro --quiet --single-item paper/dvc.yaml:paper  # of what is there
exit $failed
