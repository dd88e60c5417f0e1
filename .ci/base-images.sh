#!/usr/bin/env bash
# Provides the two base images that the Dockerfile names.
#
# Existing images are used, missing ones pulled. If no registry answers, the images are built from
# Debian's packages and this machine's Rust release, and tagged as if they had been pulled, so that
# the Dockerfile is tested unchanged. They have the label ringest.base=local; remove them with
# `docker image rm`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

main() {
    debian_image=$(base_image DEBIAN_IMAGE)
    rust_image=$(base_image RUST_IMAGE)
    scratch=$(mktemp --directory)
    trap 'rm --recursive --force --one-file-system "$scratch"' EXIT
    obtain "$debian_image" make_debian_image
    obtain "$rust_image" make_rust_image
}

# The default of a build argument of the Dockerfile.
base_image() {
    sed --quiet "s/^ARG $1=//p" Dockerfile
}

# obtain IMAGE FUNCTION: provides the image, if need be by calling the function.
obtain() {
    if docker image inspect "$1" >/dev/null 2>&1; then
        echo "$1: exists"
    elif timeout 20 docker manifest inspect "$1" >/dev/null 2>&1 \
        && timeout 600 docker pull --quiet "$1"; then
        echo "$1: pulled"
    else
        echo "$1: no registry answers; building it here"
        "$2"
    fi
}

make_debian_image() {
    local suite=${debian_image#*:}
    suite=${suite%-slim}
    install_debootstrap
    debootstrap --variant=minbase "$suite" "$scratch/rootfs" >"$scratch/debootstrap.log" 2>&1 || {
        tail --lines=20 "$scratch/debootstrap.log"
        return 1
    }
    tar --create --directory="$scratch/rootfs" . \
        | docker import --change 'LABEL ringest.base=local' --change 'CMD ["bash"]' - \
            "$debian_image"
}

install_debootstrap() {
    command -v debootstrap >/dev/null && return
    apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive \
        apt-get install --quiet=2 --yes --no-install-recommends debootstrap >/dev/null
}

# The Debian image with a linker, and with this machine's Cargo and rustc in /usr/local/bin. Includes
# the additional certificates that this machine trusts, because a build inside the image must reach
# the same crates through the same network.
make_rust_image() {
    local sysroot wanted=${rust_image#*:}
    wanted=${wanted%%-*}
    sysroot=$(rustc --print sysroot)
    [[ $("$sysroot/bin/rustc" --version) == "rustc $wanted "* ]] || {
        echo "the Dockerfile needs Rust $wanted, this machine has $("$sysroot/bin/rustc" --version)"
        return 1
    }
    mkdir "$scratch/certificates"
    find /usr/local/share/ca-certificates -name '*.crt' \
        -exec cp --target-directory="$scratch/certificates" {} + 2>/dev/null || true
    cat >"$scratch/Dockerfile" <<EOF
FROM $debian_image
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive \
    apt-get install --yes --no-install-recommends ca-certificates gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/*
COPY certificates/ /usr/local/share/ca-certificates/
RUN update-ca-certificates
COPY bin /usr/local/bin
COPY lib /usr/local/lib
LABEL ringest.base=local
EOF
    # A single archive of both places is the build context, so nothing is copied first.
    tar --create --directory="$scratch" Dockerfile certificates \
        --directory="$sysroot" bin/cargo bin/rustc lib \
        | docker build --quiet --tag "$rust_image" -
}

main
