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
failed=0
# A group that starts as another one does (cifar10_low, cifar10) comes first, so that each setting is taken once.
for group in $(of encode | sort -r); do
  own=$(grep "^$group\(_\|$\)" <<<"$settings" || true)
  [ -n "$own" ] || continue
  settings=$(grep -v "^$group\(_\|$\)" <<<"$settings" || true)
  # Without its data none of a group's settings can run; the others can.
  if dvc repro --quiet "paper/dvc.yaml:encode@$group"; then ready+=$own$'\n'; else failed=1; fi
done
# One xargs slot a GPU, in turn; with none, the variable stays as it is. After a status of 255, which is dvc's, xargs
# would start nothing more.
export GPUS=$gpus
xargs -P "$jobs" --process-slot-var=SLOT -I{} bash -c '
  if [ "$GPUS" -gt 0 ]; then export CUDA_VISIBLE_DEVICES=$((SLOT % GPUS)); fi
  paper/setting.sh "$1" || exit 1' setting {} <<<"${ready-}" || failed=1
dvc repro --quiet --single-item paper/dvc.yaml:paper  # of what is there
exit $failed
