#!/usr/bin/env bash
# Checks the metrics of a running engine with Prometheus's promtool: `bash .ci/metrics.sh BINARY`.
#
# promtool comes from Debian's Prometheus package, unpacked rather than installed, because installing
# it would start a server. Without promtool that part is skipped with a line that says so; the
# metrics are still fetched and compared.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly BINARY=${1:?the ringest program}
readonly TOOLS=${HOME}/.cache/ringest/tools
readonly READY_TIMEOUT_S=20

main() {
    scratch=$(mktemp --directory)
    engine_pid=
    trap clean_up EXIT

    start_engine
    make_traffic
    fetch metrics >"$scratch/metrics"
    fetch stats.json | python3 -m json.tool >/dev/null
    expect_traffic
    "$BINARY" health --admin-port "${admin##*:}"
    check_with_promtool
    stop_engine
}

clean_up() {
    local status=$?
    if ((status != 0)); then
        cat "$scratch/log" 2>/dev/null || true
    fi
    [[ -z $engine_pid ]] || kill "$engine_pid" 2>/dev/null || true
    rm --recursive --force "$scratch"
    exit "$status"
}

# Port 0 takes a free port; the engine prints it on stderr.
start_engine() {
    "$BINARY" serve --host 127.0.0.1 --port 0 --records-port 0 --admin-port 0 --format ndjson \
        >"$scratch/results" 2>"$scratch/log" &
    engine_pid=$!
    for ((tenths = 0; tenths < READY_TIMEOUT_S * 10; tenths++)); do
        if grep --quiet "ready for records on" "$scratch/log"; then
            admin=$(address admin)
            return
        fi
        kill -0 "$engine_pid"
        sleep 0.1
    done
    echo "the engine is not ready after $READY_TIMEOUT_S s"
    return 1
}

# address WHAT: the address on which the engine listens for it.
address() {
    sed --quiet "s|^ringest: ready for $1 on \(http://\)\?\([0-9.:]*\).*|\2|p" "$scratch/log"
}

# Traffic of each kind, invalid input included, so that every counter is seen above 0.
make_traffic() {
    local records messages
    records=$(address records)
    messages=$(address messages)
    "$BINARY" send --host 127.0.0.1 --records-port "${records##*:}" --connections 2 \
        --records 10000 --verify "$scratch/results" 2>/dev/null
    python3 - "${messages##*:}" <<'PYTHON'
import socket, struct, sys, zlib

def frame(kind, payload=b""):
    body = struct.pack(">4sBBH", b"\xde\xad\xbe\xef", 1, kind, len(payload)) + payload
    return body + struct.pack(">I", zlib.crc32(body))

port = int(sys.argv[1])
requests = [frame(0x01, bytes(8)), frame(0x03, b"echo"), frame(0x05, b"all"),
            frame(0x06, b"\x05alicetoken"), frame(0x08, bytes(4) + b"data"), frame(0x0A)]
for sent in [b"".join(requests), b"garbage"]:
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(sent)
        while connection.recv(4096):
            pass
PYTHON
}

# fetch PATH: does not need curl, which a bare machine may lack.
fetch() {
    python3 -c 'import sys, urllib.request
sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())' \
        "http://$admin/$1"
}

expect_traffic() {
    local line
    for line in 'ringest_messages_total{type="ping"} 1' 'ringest_auth_failures_total 1' \
        'ringest_opaque_data_total 1' 'ringest_records_total 20000' \
        'ringest_streams_complete_total 2' \
        'ringest_errors_total{listener="messages",reason="invalid_magic"} 1'; do
        grep --quiet --line-regexp --fixed-strings "$line" "$scratch/metrics" || {
            echo "the metrics lack: $line"
            cat "$scratch/metrics"
            return 1
        }
    done
    echo "$(grep --count --invert-match '^#' "$scratch/metrics") samples, counted as expected"
}

check_with_promtool() {
    get_promtool || {
        echo "METRICS CHECK SKIPPED: no promtool, and Debian's package cannot be downloaded"
        return 0
    }
    "$promtool" check metrics <"$scratch/metrics"
    echo "promtool check metrics: passed"
}

# Finds or unpacks promtool; returns 1 if it is unavailable.
get_promtool() {
    promtool=$(command -v promtool || echo "$TOOLS/promtool")
    [[ ! -x $promtool ]] || return 0
    command -v apt-get >/dev/null || return 1
    [[ $(id --user) != 0 ]] || apt-get update --quiet=2 || return 1
    # The part of apt-get that downloads has no privileges.
    chmod 0755 "$scratch"
    install --directory --mode 0777 "$scratch/package"
    (cd "$scratch/package" && apt-get download --quiet=2 prometheus >/dev/null 2>&1) || return 1
    mkdir --parents "$TOOLS"
    dpkg-deb --fsys-tarfile "$scratch"/package/prometheus_*.deb \
        | tar --extract --directory "$scratch/package" ./usr/bin/promtool || return 1
    mv "$scratch/package/usr/bin/promtool" "$promtool"
    "$promtool" --version >/dev/null
}

stop_engine() {
    local status=0
    kill -TERM "$engine_pid"
    wait "$engine_pid" || status=$?
    engine_pid=
    ((status == 0)) || {
        echo "the engine exited with $status after SIGTERM"
        return 1
    }
}

main
