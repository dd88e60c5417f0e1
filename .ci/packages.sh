# Sourced by the other scripts: installs Debian packages, as root on Debian.

# install_packages NAME…: returns 1 if they cannot be installed.
install_packages() {
    command -v apt-get >/dev/null && [[ $(id --user) == 0 ]] || return 1
    apt-get update --quiet=2 \
        && DEBIAN_FRONTEND=noninteractive \
            apt-get install --quiet=2 --yes --no-install-recommends "$@" >/dev/null
}
