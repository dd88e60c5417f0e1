#!/usr/bin/env bash
# Stops and kills engines behind a real HAProxy: `bash .ci/haproxy.sh BINARY`. No record stream may be
# lost.
#
# HAProxy gets deploy/haproxy/haproxy.cfg with other addresses. The program comes from Debian's
# package, unpacked rather than installed, because installing it would start a server. Where it cannot
# be had, the check is skipped with a line that says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly BINARY=${1:?the ringest program}
readonly TOOLS=${HOME}/.cache/ringest/tools/haproxy
readonly CONFIGURATION=deploy/haproxy/haproxy.cfg
readonly STREAMS=8
readonly RECORDS=20000
# Longer than anything here takes; a check that waits so long fails.
readonly PATIENCE_S=120

main() {
    scratch=$(mktemp --directory)
    pids=()
    trap clean_up EXIT

    get_haproxy || {
        echo "LOAD BALANCER CHECK SKIPPED: no haproxy, and Debian's package cannot be downloaded"
        return 0
    }
    "$haproxy" -v | head --lines 1
    "$haproxy" -c -q -f "$CONFIGURATION"
    echo "$CONFIGURATION: valid"

    start_both
    stop_under_load
    expect_all "while an engine was stopped"
    stop_all

    start_both
    kill -KILL "$engine_a"
    wait "$engine_a" 2>/dev/null || true
    send_streams
    expect_all "right after an engine was killed"
    stop_all
}

clean_up() {
    local status=$?
    if ((status != 0)); then
        tail --lines 20 "$scratch"/*.log 2>/dev/null || true
    fi
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    rm --recursive --force "$scratch"
    exit "$status"
}

# until_true WHAT COMMAND...: waits until the command succeeds.
until_true() {
    local what=$1 deadline=$((SECONDS + PATIENCE_S))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || {
            echo "waited in vain for $what"
            return 1
        }
        sleep 0.05
    done
}

# Two engines, and the balancer in front of them, which has seen both.
start_both() {
    sent=0
    start_engine a
    engine_a=$engine
    start_engine b
    engine_b=$engine
    frontend=$(python3 -c 'import socket
with socket.create_server(("127.0.0.1", 0)) as free:
    print(free.getsockname()[1])')
    sed --expression "s|bind :9000|bind 127.0.0.1:$frontend|" \
        --expression "$(server a 10.0.0.11)" --expression "$(server b 10.0.0.12)" \
        "$CONFIGURATION" >"$scratch/haproxy.cfg"
    # Questions about what the checks have seen.
    printf 'global\n    stats socket %s\n' "$scratch/socket" >"$scratch/socket.cfg"
    "$haproxy" -f "$scratch/haproxy.cfg" -f "$scratch/socket.cfg" >"$scratch/haproxy.log" 2>&1 &
    balancer=$!
    pids+=("$balancer")
    until_true "the checks of the balancer" both_are_up
}

# start_engine NAME: sets engine to its process number.
start_engine() {
    "$BINARY" serve --host 127.0.0.1 --records-port 0 --no-messages --admin-port 0 --node "$1" \
        --format ndjson --drain-timeout 60s >"$scratch/$1.ndjson" 2>"$scratch/$1.log" &
    engine=$!
    pids+=("$engine")
    until_true "engine $1" grep --quiet "ready for records on" "$scratch/$1.log"
}

# port NAME WHAT: the port on which an engine listens for it.
port() {
    sed --quiet "s|^ringest: ready for $2 on \(http://\)\?[0-9.]*:\([0-9]*\).*|\2|p" \
        "$scratch/$1.log"
}

# server NAME ADDRESS: the sed command that puts an engine into the line of that address.
server() {
    printf 's|server %s %s:9000|server %s 127.0.0.1:%s port %s|' \
        "$1" "$2" "$1" "$(port "$1" records)" "$(port "$1" admin)"
}

# Whether both engines have passed a check.
both_are_up() {
    [[ $(ask_balancer 2>/dev/null | grep --count '^engines,[ab],.*,L7OK,') == 2 ]]
}

ask_balancer() {
    python3 -c 'import socket, sys
with socket.socket(socket.AF_UNIX) as balancer:
    balancer.connect(sys.argv[1])
    balancer.sendall(b"show stat\n")
    sys.stdout.write(b"".join(iter(lambda: balancer.recv(65536), b"")).decode())' "$scratch/socket"
}

send_streams() {
    "$BINARY" send --host 127.0.0.1 --records-port "$frontend" --connections "$STREAMS" \
        --records "$RECORDS" "$@" >>"$scratch/send.log" 2>&1
    sent=$((sent + STREAMS))
}

# Streams that take 4 s and run when the engine is told to stop, and new ones until after its end.
stop_under_load() {
    local running rounds=1 status=0
    "$BINARY" send --host 127.0.0.1 --records-port "$frontend" --connections "$STREAMS" \
        --records "$RECORDS" --rate "$((STREAMS * RECORDS / 4))" >"$scratch/running.log" 2>&1 &
    running=$!
    pids+=("$running")
    until_true "running streams" running_streams
    kill -TERM "$engine_a"
    send_streams
    while is_running "$engine_a"; do
        send_streams
        rounds=$((rounds + 1))
        sleep 0.1
    done
    wait "$engine_a" || status=$?
    ((status == 0)) || {
        echo "the engine exited with $status after SIGTERM"
        return 1
    }
    send_streams
    wait "$running"
    sent=$((sent + STREAMS))
    grep --quiet "connections are accepted for 5s more" "$scratch/a.log" || {
        echo "the engine closed its listener at once, although it was checked"
        return 1
    }
    echo "$rounds times $STREAMS streams came while the engine was stopping"
}

# Whether as many record streams are open at both engines as were begun.
running_streams() {
    local active
    active=$(python3 -c 'import json, sys, urllib.request
active = 0
for port in sys.argv[1:]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/stats.json", timeout=10) as reply:
        active += json.load(reply)["connections_active"]["records"]
print(active)' "$(port a admin)" "$(port b admin)")
    ((active == STREAMS))
}

# is_running PID: a process that has ended and was not waited for is not running.
is_running() {
    grep --quiet '^State:[[:space:]]*[^Z[:space:]]' "/proc/$1/status" 2>/dev/null
}

complete() {
    cat "$scratch/a.ndjson" "$scratch/b.ndjson" | grep --count '"status":"complete"' || true
}

results() {
    cat "$scratch/a.ndjson" "$scratch/b.ndjson" | grep --count '"status":' || true
}

all_are_reported() {
    (($(results) >= sent))
}

expect_all() {
    until_true "$sent results (so far $(results))" all_are_reported
    (($(complete) == sent)) || {
        echo "of $sent streams sent $1, $(complete) came out complete"
        return 1
    }
    echo "all $sent streams sent $1 came out complete"
}

stop_all() {
    # The second engine would wait for its checks to notice.
    kill -KILL "$engine_b" "$balancer"
    wait "$engine_b" "$balancer" 2>/dev/null || true
    pids=()
}

# Finds or unpacks haproxy with the libraries that this machine lacks; returns 1 if it is
# unavailable.
get_haproxy() {
    haproxy=$(PATH=$PATH:/usr/sbin command -v haproxy) && return 0
    haproxy=$TOOLS/run
    [[ ! -x $haproxy ]] || return 0
    # Only root may ask which packages are missing and download them.
    [[ $(id --user) == 0 ]] && command -v apt-get >/dev/null || return 1
    apt-get update --quiet=2 || return 1
    mkdir --parents "$scratch/packages/partial" "$TOOLS"
    # The part of apt-get that downloads has no privileges.
    chmod 0755 "$scratch" "$scratch/packages"
    chown _apt "$scratch/packages/partial" 2>/dev/null || true
    apt-get install --quiet=2 --yes --no-install-recommends --download-only \
        --option "Dir::Cache::archives=$scratch/packages" haproxy >/dev/null || return 1
    for package in "$scratch"/packages/*.deb; do
        dpkg-deb --extract "$package" "$TOOLS"
    done
    cat >"$haproxy" <<'RUN'
#!/bin/sh
here=$(dirname "$0")
LD_LIBRARY_PATH=$(echo "$here"/usr/lib/*-linux-gnu) exec "$here/usr/sbin/haproxy" "$@"
RUN
    chmod +x "$haproxy"
    "$haproxy" -v >/dev/null
}

main
