# Sourced by the other scripts: packages of Debian, where this is Debian and the user is root.

# install_packages NAME…: returns 1 where they cannot be had.
install_packages() {
    command -v apt-get >/dev/null && [[ $(id --user) == 0 ]] || return 1
    apt-get update --quiet=2 \
        && DEBIAN_FRONTEND=noninteractive \
            apt-get install --quiet=2 --yes --no-install-recommends "$@" >/dev/null
}
