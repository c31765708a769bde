#!/usr/bin/env bash
# Starts three nodes on this host and returns when all of them serve.
#
#   tests/cluster/start.sh [NODE…]     in this order; all three when none is named
#
# CHRONIK_CLUSTER_DIR  what they store and log [target/cluster]
# CHRONIK_BINARY       the binary to run [built from this source]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
run=${CHRONIK_CLUSTER_DIR:-$target/cluster}
nodes=("$@")
[ ${#nodes[@]} -gt 0 ] || nodes=(1 2 3)

server=${CHRONIK_BINARY:-}
if [ -z "$server" ]; then
  (cd "$root" && cargo build --release --quiet -p chronik --bin chronik-server)
  server=$target/release/chronik-server
fi
server=$(realpath "$server")
mkdir -p "$run"
cd "$run"

# Whether the process of a pid file is a server that has not ended: what has ended has no binary any more.
runs() { [ -f "$1" ] && [[ "$(readlink "/proc/$(cat "$1")/exe" 2>/dev/null)" == */chronik-server* ]]; }

started=()
fail() {
  echo "start.sh: $1" >&2
  for node in "${started[@]}"; do
    kill -9 "$(cat "node$node/pid")" 2>/dev/null || true
    rm -f "node$node/pid"
    echo "--- node $node:" >&2
    tail -n 5 "node$node/log" >&2
  done
  exit 1
}

for node in "${nodes[@]}"; do
  [ -f "$here/node$node.toml" ] || fail "there is no node $node"
  ! runs "node$node/pid" || fail "node $node runs already; tests/cluster/stop.sh stops it"
  mkdir -p "node$node"
  : > "node$node/log"
  setsid "$server" --config "$here/node$node.toml" < /dev/null >> "node$node/log" 2>&1 &
  echo $! > "node$node/pid"
  started+=("$node")
done

# One by itself waits for a majority: the others may be there already, or come later.
deadline=$((SECONDS + 60))
for node in "${nodes[@]}"; do
  until grep -q 'chronik serves Kafka clients' "node$node/log"; do
    runs "node$node/pid" || fail "node $node has ended"
    [ $SECONDS -lt $deadline ] || fail "node $node does not serve"
    sleep 0.05
  done
done
echo "nodes ${nodes[*]} serve: 127.0.0.1:9092,127.0.0.1:9093,127.0.0.1:9094"
