#!/usr/bin/env bash
# A study through DVC, several settings at a time: studies/paper/run.sh JOBS [PATTERN [STUDY]]. PATTERN (an extended regular
# expression) chooses among the names, such as '^mnist'; STUDY is paper or decide. To resume after an interruption, run
# it again. GPUs are dealt out to the jobs, and so are cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
jobs=${1:-1} pattern=${2:-.} study=${3:-paper}
GPUS=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || true)
export GPUS
if [ "$jobs" -gt 1 ]; then
  cores=$(nproc)
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > jobs ? cores / jobs : 1))}
fi
chosen=$(python -m studies.plan --study "$study" --stages "$pattern")  # lines of data set, group, stage
[ -n "$chosen" ] || { echo "no setting matches $pattern" >&2; exit 1; }
case $study in paper) page=paper ;; *) page=claims ;; esac
cd "studies/$page"
failed=0
[ "$study" = paper ] || dvc repro --quiet classifier
groups=($(cut -d' ' -f2 <<<"$chosen" | awk '!seen[$0]++'))
if dvc repro --quiet "${groups[@]/#/encode@}"; then
  ready=$(cut -d' ' -f3 <<<"$chosen")
else  # without its data, or its noise, none of a group's settings can run; the others can
  failed=1
  for group in "${groups[@]}"; do
    if dvc repro --quiet "encode@$group"; then
      ready+=$(awk -v group="$group" '$2 == group {print $3}' <<<"$chosen")$'\n'
    fi
  done
fi
# One xargs slot a GPU, in turn; with none, the variable stays as it is. After a status of 255, which is dvc's, xargs
# would start nothing more.
xargs -P "$jobs" --process-slot-var=SLOT -I{} bash -c '
  if [ "$GPUS" -gt 0 ]; then export CUDA_VISIBLE_DEVICES=$((SLOT % GPUS)); fi
  # What git has as measured is left, though its networks may not be on this machine.
  grep -qs "measure@$1:" dvc.lock &&
    planned=$(dvc --wait-for-lock repro --dry --allow-missing --single-item "train@$1" "measure@$1" 2>&1) &&
    ! grep -q "^Running" <<<"$planned" && exit 0
  dvc --wait-for-lock repro --quiet --single-item "train@$1" "measure@$1" || exit 1' setting {} <<<"${ready-}" || failed=1
dvc repro --quiet --single-item "$page"  # of what is there
exit $failed
