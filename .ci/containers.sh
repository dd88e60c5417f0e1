#!/usr/bin/env bash
# The container checks: both images, built from the Dockerfile as it is and run by compose.yaml.
#
# A Docker engine that answers is used; else one is installed from Debian's packages and started for
# the time of the checks. Where none can be had, a line says so and the checks count as passed.
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

    # Options of the engine that happen to be set in this shell are not what is checked.
    unset "${!RINGEST_@}" MAX_CONNECTIONS RATE_LIMIT
    # The sender's user in the container must be able to write here.
    mkdir "$scratch/expected"
    chmod 0777 "$scratch/expected"
    export EXPECTED_DIR=$scratch/expected
    export RECORDS=$RECORDS_CHECKED
    # Port 0 takes a free one, so that nothing of this host is in the way.
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
    # Since Debian 13 the client is a package of its own.
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
    skipped_because="dockerd does not start here, its last words are above"
    return 1
}

# remove_stale_pid_file FILE PROGRAM: after a power-off such a file may name a process that has
# nothing to do with the program, which would then believe that it is running already.
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

# fit_limit ULIMIT VARIABLE FLAG UNIT: where the Docker engine may not raise a limit to what
# compose.yaml asks for, takes the documented way out, which is to ask for what there is.
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

# What `docker compose up` does, with the results in a form that can be compared.
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

# A container that is told to stop ends by itself, in time and with success.
check_stop() {
    echo "SIGTERM"
    "${compose[@]}" up --detach --no-build engine
    expect_healthy engine
    "${compose[@]}" stop
    expect_exit engine 0
    "${compose[@]}" down
}

# What a user of a profile without io_uring sees: exit code 3, and the cause by its name.
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
        echo "the engine was denied io_uring, but its message does not name seccomp"
        return 1
    }
    "${compose[@]}" down
}

# expect_exit SERVICE CODE: waits until the service's container has ended with this exit code.
expect_exit() {
    local code
    code=$(timeout "$EXIT_TIMEOUT_S" docker wait "$(container "$1")") || {
        echo "$1 still runs after $EXIT_TIMEOUT_S s"
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
    echo "$1 is not healthy but: $health"
    return 1
}

# The id of a service's container, also when it has ended; `ps` of Compose v1 and v2 differ there.
container() {
    docker ps --all --quiet --no-trunc \
        --filter "label=com.docker.compose.project=$PROJECT" \
        --filter "label=com.docker.compose.service=$1" \
        --filter "label=com.docker.compose.oneoff=False"
}

main
