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
free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
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

CHRONIK_PID=
CHRONIK_ADDRESS=

# start_chronik DIR: builds Chronik and starts it on a free port, with its data in DIR/data and its log in
# DIR/server.log. Sets CHRONIK_PID and CHRONIK_ADDRESS.
start_chronik() {
    local dir=$1 root port
    root=$(cd "$CLIENTS_DIR/../.." && pwd)
    mkdir -p "$dir"
    (cd "$root" && cargo build --release --bin chronik-server) || return 1
    port=$(free_port) || return 1
    "${CARGO_TARGET_DIR:-$root/target}/release/chronik-server" --kafka-port "$port" --data-dir "$dir/data" \
        >"$dir/server.log" 2>&1 &
    CHRONIK_PID=$!
    local deadline=$((SECONDS + 30))
    until listens "$CHRONIK_PID" "$port"; do
        if ! kill -0 "$CHRONIK_PID" 2>/dev/null || [ "$SECONDS" -ge "$deadline" ]; then
            tail -20 "$dir/server.log"
            echo "FAIL chronik-server did not start to listen on port $port"
            return 1
        fi
        sleep 0.05
    done
    CHRONIK_ADDRESS=127.0.0.1:$port
}

# stop_chronik: asks the server that start_chronik started to stop, waits for it and returns its exit code. One that
# does not end is killed, which shows in the code.
stop_chronik() {
    [ -n "$CHRONIK_PID" ] || return 0
    local pid=$CHRONIK_PID deadline=$((SECONDS + 30)) status=0
    CHRONIK_PID=
    kill "$pid" 2>/dev/null || true
    while kill -0 "$pid" 2>/dev/null; do
        [ "$SECONDS" -lt "$deadline" ] || kill -9 "$pid"
        sleep 0.05
    done
    wait "$pid" || status=$?
    return "$status"
}
