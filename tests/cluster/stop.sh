#!/usr/bin/env bash
# Stops the nodes that start.sh has started, all at once, in order if they can.
#
#   tests/cluster/stop.sh [--wipe] [NODE…]     --wipe removes what they have stored and logged
#
# CHRONIK_CLUSTER_DIR  as for start.sh [target/cluster]
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
run=${CHRONIK_CLUSTER_DIR:-${CARGO_TARGET_DIR:-$root/target}/cluster}
wipe=
if [ "${1:-}" = --wipe ]; then wipe=1; shift; fi
nodes=("$@")
[ ${#nodes[@]} -gt 0 ] || nodes=(1 2 3)
[ -d "$run" ] || exit 0
cd "$run"

# Whether the process is a server of ours: a pid may have been given to another process since.
is_server() { [[ "$(readlink "/proc/$1/exe" 2>/dev/null)" == */chronik-server* ]]; }

pids=()
for node in "${nodes[@]}"; do
  [ -f "node$node/pid" ] || continue
  pid=$(cat "node$node/pid")
  if is_server "$pid"; then kill -TERM "$pid"; pids+=("$pid"); fi
done
status=0
deadline=$((SECONDS + 30))
for pid in "${pids[@]}"; do
  while is_server "$pid"; do
    if [ $SECONDS -ge $deadline ]; then
      echo "stop.sh: process $pid did not end in 30 s and is killed" >&2
      kill -9 "$pid" 2>/dev/null || true
      status=1
      break
    fi
    sleep 0.05
  done
done
for node in "${nodes[@]}"; do
  rm -f "node$node/pid"
  if [ -n "$wipe" ]; then rm -rf "node$node" "data/node$node"; fi
done
if [ -n "$wipe" ]; then rmdir data "$run" 2>/dev/null || true; fi
exit $status
