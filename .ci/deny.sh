#!/usr/bin/env bash
# Checks the dependencies with cargo-deny: licences, sources, duplicates, and advisories where their
# database can be fetched. The rules and their reasons are in .ci/deny.toml.
#
# Compiling cargo-deny takes minutes; the program is kept with the compiled dependencies.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VERSION=0.20.2
readonly TOOLS="${CARGO_TARGET_DIR:-target}/tools"
readonly DENY="$TOOLS/bin/cargo-deny"

if [[ $("$DENY" --version 2>/dev/null) != "cargo-deny $VERSION" ]]; then
    # It reads a lock file and prints: an optimised build would take longer than it could save.
    cargo install --locked --debug --root "$TOOLS" --target-dir "$TOOLS/build" \
        "cargo-deny@$VERSION"
    rm -rf "$TOOLS/build"
fi

checks=(bans licenses sources)
fetched=$("$DENY" --config .ci/deny.toml fetch db 2>&1) && checks+=(advisories)
"$DENY" --config .ci/deny.toml check "${checks[@]}"
if [[ ! " ${checks[*]} " == *" advisories "* ]]; then
    echo "ADVISORIES NOT CHECKED: their database, a git repository, cannot be fetched from here:"
    tail -n 3 <<<"$fetched"
fi
