#!/usr/bin/env bash
# Two network namespaces as two hosts that share a disk: tests/system/two_hosts.sh (Linux; root, or user namespaces). Encodes,
# trains and samples on both, compares with one process, kills one host's worker, and goes on.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
[ "${1-}" = inside ] || exec unshare --map-root-user --net --kill-child "$root/tests/system/two_hosts.sh" inside

unshare --net sleep infinity &
other=$!
work=$(mktemp -d)
trap 'kill $other; rm -r "$work"' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.1; done
ip link add first type veth peer name second netns $other
ip address add 10.77.0.1/24 dev first && ip link set first up && ip link set lo up
on_other() { nsenter --net --target $other "$@"; }
on_other ip address add 10.77.0.2/24 dev second
on_other ip link set second up && on_other ip link set lo up

export PYTHONPATH=$root SAGD_SCRATCH=$work/scratch OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=true
launcher() {  # of one host's share
  echo "accelerate launch --multi_gpu --num_machines 2 --num_processes 2 --machine_rank $1 --mixed_precision no" \
    "--dynamo_backend no --main_process_ip 10.77.0.1 --main_process_port 29511"
}
both() {  # one stage on both hosts, as a user types it on each
  GLOO_SOCKET_IFNAME=second SAGD_LAUNCH=$(launcher 1) on_other python -m "pipeline.$1" 2> "$work/second.txt" &
  local second=$! status=0
  GLOO_SOCKET_IFNAME=first SAGD_LAUNCH=$(launcher 0) python -m "pipeline.$1" 2> "$work/first.txt" || status=$?
  wait $second || status=$?
  return $status
}
study() {
  mkdir -p "$1" && cd "$1"
  python - "$root" "$2" <<'PYTHON'
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.system.test_distributed import PARAMS
Path("params.yaml").write_text(PARAMS.replace("STEPS", sys.argv[2]))
PYTHON
}

study "$work/one" 60
for stage in prepare corrupt encode train sample; do python -m pipeline.$stage 2> "$work/one.txt"; done
mv "$SAGD_SCRATCH" "$work/scratch_of_one"
study "$work/two" 60
for stage in prepare corrupt; do python -m pipeline.$stage; done
for stage in encode train; do both $stage; echo "$stage: on both hosts"; done
cmp reports/train.csv ../one/reports/train.csv && echo "train: the loss curve of one process"
rm -r artifacts/train && cp -r ../one/artifacts/train artifacts/  # the same network, to the bit
both sample
cmp artifacts/sample/samples.npz ../one/artifacts/sample/samples.npz && echo "sample: the bytes of one process"

study "$work/two" 4000
rm "$work/first.txt"
(
  until grep -qs "images/s" "$work/first.txt"; do sleep 0.2; done
  pkill -KILL --newest --ns $other --nslist net --full pipeline.train && echo "a worker is killed"
) &
! both train || { echo "nothing was noticed"; exit 1; }
grep -vhE "images/s|^\[W" "$work/first.txt" "$work/second.txt"
both train && echo "train: goes on to the end"
