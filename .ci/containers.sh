#!/usr/bin/env bash
# Checks the containers: builds both images from the Dockerfile, and runs them with compose.yaml.
#
# Uses a running Docker engine; otherwise installs one from Debian's packages and runs it during the
# checks. If that is impossible, the checks are skipped with a line that says so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source .ci/packages.sh

readonly PROJECT=ringest-ci
readonly RECORDS_CHECKED=20000
readonly EXIT_TIMEOUT_S=300
readonly HEALTH_TIMEOUT_S=60

main() {
    scratch=$(mktemp --directory)
    dockerd_pid=
    compose=()
    trap clean_up EXIT

    get_engine || {
        echo "CONTAINER CHECKS SKIPPED: $skipped_because"
        exit 0
    }
    get_compose
    docker version --format 'Docker engine {{.Server.Version}}'
    "${compose[@]}" version | sed --quiet 1p

    # Ignore engine options that happen to be set in this shell.
    unset "${!RINGEST_@}" MAX_CONNECTIONS RATE_LIMIT
    # The container's user must be able to write here.
    mkdir "$scratch/expected"
    chmod 0777 "$scratch/expected"
    export EXPECTED_DIR=$scratch/expected
    export RECORDS=$RECORDS_CHECKED
    # Port 0 takes a free port, so that other programs on this host do not matter.
    export RINGEST_BIND_PORT=0 RINGEST_BIND_MESSAGES_PORT=0 RINGEST_BIND_ADMIN_PORT=0
    compose+=(--project-name "$PROJECT" --file compose.yaml --file .ci/compose.ci.yaml)

    bash .ci/base-images.sh
    build_images
    fit_limit memlock RINGEST_MEMLOCK_BYTES -l 1024
    fit_limit nofile RINGEST_NOFILE -n 1

    check_results
    check_doctor
    check_stop
    check_denied_io_uring
}

clean_up() {
    local status=$?
    if ((${#compose[@]} > 2)); then
        ((status == 0)) || show_logs
        "${compose[@]}" down --volumes --timeout 5 >/dev/null 2>&1 || true
    fi
    if [[ -n $dockerd_pid ]]; then
        kill "$dockerd_pid" 2>/dev/null || true
        wait "$dockerd_pid" 2>/dev/null || true
    fi
    rm --recursive --force "$scratch"
    exit "$status"
}

show_logs() {
    echo "--- logs of the containers ---"
    "${compose[@]}" logs --no-color --tail 60 2>&1 | cut --characters=1-400 || true
}

# --- Docker engine and Compose --------------------------------------------------------------------

# Makes `docker` answer; returns 1 with the reason in skipped_because.
get_engine() {
    if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
        return
    fi
    if [[ $(id --user) != 0 ]]; then
        skipped_because="no Docker engine answers, and only root can start one"
        return 1
    fi
    if ! command -v dockerd >/dev/null && ! install_packages docker.io; then
        skipped_because="no Docker engine answers, and Debian's docker.io cannot be installed"
        return 1
    fi
    # Since Debian 13 the client is a separate package.
    command -v docker >/dev/null || install_packages docker-cli || true
    # A service manager may have started the engine while it was installed.
    if docker info >/dev/null 2>&1; then
        return
    fi
    remove_stale_pid_file /run/docker.pid dockerd
    remove_stale_pid_file /run/docker/containerd/containerd.pid containerd
    dockerd >"$scratch/dockerd.log" 2>&1 </dev/null &
    dockerd_pid=$!
    for _ in {1..60}; do
        if docker info >/dev/null 2>&1; then
            return
        fi
        kill -0 "$dockerd_pid" 2>/dev/null || break
        sleep 1
    done
    tail --lines=5 "$scratch/dockerd.log"
    skipped_because="dockerd does not start here; see its output above"
    return 1
}

# remove_stale_pid_file FILE PROGRAM: after a power-off the file may name an unrelated process, and
# the program would think that it is already running.
remove_stale_pid_file() {
    local pid
    [[ -f $1 ]] || return 0
    pid=$(<"$1")
    [[ $(cat "/proc/$pid/comm" 2>/dev/null) == "$2" ]] || rm --force "$1"
}

get_compose() {
    if docker compose version >/dev/null 2>&1; then
        compose=(docker compose)
        return
    fi
    command -v docker-compose >/dev/null || install_packages docker-compose
    compose=(docker-compose)
}

# --- Limits of this machine -----------------------------------------------------------------------

# fit_limit ULIMIT VARIABLE FLAG UNIT: if the Docker engine cannot raise a limit to what compose.yaml
# asks for, asks for the current hard limit instead, as compose.yaml recommends.
fit_limit() {
    local wanted there
    wanted=$(sed --quiet "s/^ *soft: \${$2:-\([0-9]*\)}\$/\1/p" compose.yaml)
    if docker run --rm --ulimit "$1=$wanted" "$(base_image)" true 2>/dev/null; then
        return
    fi
    there=$(docker run --rm "$(base_image)" sh -c "ulimit -H $3")
    export "$2=$((there * $4))"
    echo "this Docker engine cannot raise $1 to $wanted: $2=${!2}"
}

base_image() {
    sed --quiet 's/^ARG DEBIAN_IMAGE=//p' Dockerfile
}

# --- The checks -----------------------------------------------------------------------------------

build_images() {
    local log=$scratch/build.log
    "${compose[@]}" --profile doctor build >"$log" 2>&1 || {
        tail --lines=60 "$log"
        echo "the images cannot be built"
        return 1
    }
    tail --lines=3 "$log"
}

# Runs what `docker compose up` runs, with results in a form that can be compared.
check_results() {
    echo "10 connections of $RECORDS records"
    RINGEST_EXIT_AFTER=10 RINGEST_FORMAT=ndjson "${compose[@]}" up --detach --no-build
    expect_exit test-head 0
    expect_exit engine 0
    docker logs "$(container engine)" 2>/dev/null >"$scratch/results.ndjson"
    python3 .ci/compare_results.py "$EXPECTED_DIR/expected.json" "$scratch/results.ndjson"
    "${compose[@]}" down
}

check_doctor() {
    echo "doctor inside the container"
    "${compose[@]}" --profile doctor run --rm doctor
}

# A container told to stop must exit by itself, in time and with success.
check_stop() {
    echo "SIGTERM"
    "${compose[@]}" up --detach --no-build engine
    expect_healthy engine
    "${compose[@]}" stop
    expect_exit engine 0
    "${compose[@]}" down
}

# With a profile that denies io_uring, the engine must exit with code 3 and name the cause.
check_denied_io_uring() {
    echo "a seccomp profile that denies io_uring"
    python3 - deploy/docker/seccomp-ringest.json >"$scratch/denied.json" <<'EOF'
import json, sys

profile = json.load(open(sys.argv[1], encoding="utf-8"))
for rule in profile["syscalls"]:
    rule["names"] = [name for name in rule["names"] if not name.startswith("io_uring_")]
profile["syscalls"] = [rule for rule in profile["syscalls"] if rule["names"]]
json.dump(profile, sys.stdout)
EOF
    RINGEST_SECCOMP=$scratch/denied.json "${compose[@]}" up --detach --no-build engine
    expect_exit engine 3
    docker logs "$(container engine)" >"$scratch/denied.log" 2>&1
    cat "$scratch/denied.log"
    grep --quiet --ignore-case seccomp "$scratch/denied.log" || {
        echo "io_uring was denied, but the engine's message does not mention seccomp"
        return 1
    }
    "${compose[@]}" down
}

# expect_exit SERVICE CODE: waits until the service's container has ended with this exit code.
expect_exit() {
    local code
    code=$(timeout "$EXIT_TIMEOUT_S" docker wait "$(container "$1")") || {
        echo "$1 is still running after $EXIT_TIMEOUT_S s"
        return 1
    }
    [[ $code == "$2" ]] || {
        echo "$1 exited with $code, expected $2"
        return 1
    }
}

expect_healthy() {
    local health waited_s
    for ((waited_s = 0; waited_s < HEALTH_TIMEOUT_S; waited_s++)); do
        health=$(docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' \
            "$(container "$1")")
        [[ $health != "running healthy" ]] || return 0
        [[ $health == running* ]] || break
        sleep 1
    done
    echo "$1 is not healthy: $health"
    return 1
}

# The ID of a service's container, even after it has ended; Compose v1 and v2 differ in their `ps`.
container() {
    docker ps --all --quiet --no-trunc \
        --filter "label=com.docker.compose.project=$PROJECT" \
        --filter "label=com.docker.compose.service=$1" \
        --filter "label=com.docker.compose.oneoff=False"
}

main
