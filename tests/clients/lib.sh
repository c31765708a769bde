# Sourced by the scripts of the client matrix: where installed things go, how a missing tool is reported, and how
# Chronik is started and stopped.
#
# A `run` script ends with 0 (all checks passed), 1 (a check failed, or could not be run) or 77 (skipped: a
# toolchain is missing). Everything that is installed lands in CLIENT_CACHE, never in the source tree.

CLIENTS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CLIENT_CACHE=${CHRONIK_CLIENT_CACHE:-$(cd "$CLIENTS_DIR/../.." && pwd)/target/clients}
SKIPPED_EXIT=77

# need NAME TOOL...: ends the script as skipped unless every tool can be started.
need() {
    local name=$1 tool
    shift
    for tool in "$@"; do
        if ! command -v "$tool" >/dev/null 2>&1; then
            echo "SKIPPED $name: $tool missing"
            exit "$SKIPPED_EXIT"
        fi
    done
}

# installed DIR FILE...: true when DIR was installed from exactly these files.
installed() {
    local dir=$1
    shift
    [ -f "$dir/.installed" ] && [ "$(cat "$dir/.installed")" = "$(cat "$@" | sha256sum)" ]
}

# mark_installed DIR FILE...: remembers what DIR was installed from.
mark_installed() {
    local dir=$1
    shift
    cat "$@" | sha256sum >"$dir/.installed"
}

# install_jars DIR POM: copies the jars that POM names, and those they need, to DIR/lib.
install_jars() {
    local dir=$1 pom=$2
    installed "$dir" "$pom" && return 0
    rm -rf "$dir"
    mkdir -p "$dir"
    mvn -q -B -f "$pom" dependency:copy-dependencies -DoutputDirectory="$dir/lib" -DincludeScope=runtime >&2 || return 1
    mark_installed "$dir" "$pom"
}

# install_venv DIR REQUIREMENTS: a Python environment with exactly the packages that REQUIREMENTS pins.
install_venv() {
    local dir=$1 requirements=$2
    installed "$dir" "$requirements" && return 0
    rm -rf "$dir"
    mkdir -p "$(dirname "$dir")"
    python3 -m venv "$dir" || return 1
    "$dir/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
        -r "$requirements" >&2 || return 1
    mark_installed "$dir" "$requirements"
}

# free_port: prints a port that nothing listens on.
free_port() { free_ports 1; }

# free_ports COUNT: prints as many, each another one.
free_ports() {
    python3 -c '
import socket, sys
bound = [socket.socket() for _ in range(int(sys.argv[1]))]
for one in bound:
    one.bind(("127.0.0.1", 0))
    print(one.getsockname()[1])' "$1"
}

# listens PID PORT: true when the process itself, and not an older one, listens: one of its descriptors is that socket.
listens() {
    local pid=$1 port=$2 hex inode
    hex=$(printf '%04X' "$port")
    for inode in $(awk -v port=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == port { print $10 }' \
        "/proc/$pid/net/tcp" "/proc/$pid/net/tcp6" 2>/dev/null); do
        if ls -l "/proc/$pid/fd" 2>/dev/null | grep -q "socket:\[$inode\]"; then
            return 0
        fi
    done
    return 1
}

CHRONIK_PIDS=()
CHRONIK_ADDRESS=

# start_chronik DIR [NODES]: builds Chronik and starts it on free ports, one node alone or several as a cluster. Node n
# has its data in DIR/data-n and its log in DIR/server-n.log. Sets CHRONIK_PIDS, and CHRONIK_ADDRESS to that of the first.
start_chronik() {
    local dir=$1 nodes=${2:-1} root server node ports=()
    root=$(cd "$CLIENTS_DIR/../.." && pwd)
    server=${CARGO_TARGET_DIR:-$root/target}/release/chronik-server
    mkdir -p "$dir"
    (cd "$root" && cargo build --release --bin chronik-server) || return 1
    mapfile -t ports < <(free_ports $((3 * nodes)))
    CHRONIK_ADDRESS=127.0.0.1:${ports[0]}
    CHRONIK_PIDS=()
    # Checks of compaction do not wait for the usual fifteen seconds.
    local often='"log.cleaner.backoff.ms" = 200'
    printf '[kafka]\n%s\n' "$often" >"$dir/node.toml"
    if [ "$nodes" -gt 1 ]; then
        node_config "$nodes" "${ports[@]}" >"$dir/nodes.toml"
        printf '[kafka]\n%s\n' "$often" >>"$dir/nodes.toml"
    fi
    for ((node = 1; node <= nodes; node++)); do
        local flags=(--config "$dir/node.toml" --kafka-port "${ports[node - 1]}" --data-dir "$dir/data-$node")
        if [ "$nodes" -gt 1 ]; then
            flags=(--config "$dir/nodes.toml" --node-id "$node" --rack "rack-$node" --data-dir "$dir/data-$node")
        fi
        "$server" "${flags[@]}" >"$dir/server-$node.log" 2>&1 &
        CHRONIK_PIDS+=("$!")
    done
    local deadline=$((SECONDS + 30))
    for ((node = 1; node <= nodes; node++)); do
        until listens "${CHRONIK_PIDS[node - 1]}" "${ports[node - 1]}" &&
            grep -q 'chronik serves Kafka clients' "$dir/server-$node.log"; do
            if ! kill -0 "${CHRONIK_PIDS[node - 1]}" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
                tail -20 "$dir/server-$node.log"
                echo "FAIL chronik-server did not start to listen on port ${ports[node - 1]}"
                return 1
            fi
            sleep 0.05
        done
    done
}

# node_config NODES PORT...: prints the configuration that all nodes of a cluster share: of each kind of connection a
# port a node.
node_config() {
    local nodes=$1 node
    shift
    local ports=("$@")
    echo "replication_factor = $nodes"
    echo "min_insync_replicas = $((nodes / 2 + 1))"
    echo 'profile = "shared-host"'
    for ((node = 1; node <= nodes; node++)); do
        printf '[[peers]]\nid = %d\nkafka = "127.0.0.1:%d"\nwal = "127.0.0.1:%d"\nraft = "127.0.0.1:%d"\n' "$node" \
            "${ports[node - 1]}" "${ports[nodes + node - 1]}" "${ports[2 * nodes + node - 1]}"
    done
}

# chronik_runs: true while every server that start_chronik started does.
chronik_runs() {
    local pid
    for pid in "${CHRONIK_PIDS[@]}"; do
        kill -0 "$pid" 2>/dev/null || return 1
    done
}

# stop_chronik: asks the servers that start_chronik started to stop, waits for them and returns the last exit code that
# is not 0. One that does not end is killed, which shows in the code.
stop_chronik() {
    local pids=("${CHRONIK_PIDS[@]}") pid deadline=$((SECONDS + 30)) status=0 code
    CHRONIK_PIDS=()
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
    for pid in "${pids[@]}"; do
        while kill -0 "$pid" 2>/dev/null; do
            [ "$SECONDS" -lt "$deadline" ] || kill -9 "$pid"
            sleep 0.05
        done
        code=0
        wait "$pid" || code=$?
        [ "$code" -eq 0 ] || status=$code
    done
    return "$status"
}
