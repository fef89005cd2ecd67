# What tools/run and tools/test share; sourced by bash. All talk goes to stderr: stdout is the caller's.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# Debian 12 names: what the library and the tool are built from, and what only the tests need, and only the benchmarks.
run_packages=(gcc libc6-dev meson ninja-build pkg-config libuv1-dev libhwloc-dev libhttp-parser-dev libjansson-dev)
test_packages=(libcriterion-dev clang g++ python3 binutils nginx strace util-linux spin)
bench_packages=(libdpdk-dev libaprutil1-dev libapr1-dev libck-dev gnuplot-nox)

say() {
    printf '%s\n' "$*" >&2
}

die() {
    say "${0##*/}: $*"
    exit 1
}

is_installed() {
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get --quiet --yes -o DPkg::Lock::Timeout=300 "$@" >&2
}

# Installs the packages named that are not there; without any of those it touches nothing and needs no rights.
install_missing() {
    local package missing=()
    command -v dpkg-query >/dev/null || {
        say "not a Debian system: please see to it that these are installed: $*"
        return 0
    }
    for package; do
        is_installed "$package" || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" -eq 0 ] || command -v sudo >/dev/null ||
        die "missing packages, and neither root nor sudo to install them: ${missing[*]}"
    say "installing: ${missing[*]}"
    if ! apt_get update || ! apt_get install --no-install-recommends "${missing[@]}"; then
        die "could not install: ${missing[*]}"
    fi
}

# configure DIRECTORY [MESON-OPTION…]: unless it is configured just so.
configure() {
    local directory=$1 again=()
    shift
    [ ! -f "$directory/build.ninja" ] || again=(--reconfigure)
    [ "$(cat "$directory/tools.options" 2>/dev/null)" = "configured: $*" ] && [ ${#again[@]} -gt 0 ] && return 0
    meson setup "${again[@]}" "$@" "$directory" "$root" && echo "configured: $*" >"$directory/tools.options"
}

# build DIRECTORY [MESON-OPTION…]: configures where that is needed, compiles what has changed. The log is shown only
# when that fails.
build() {
    local log=$1/tools.log
    mkdir -p "$1"
    say "building ${1#"$root/"}"
    configure "$@" >"$log" 2>&1 && ninja -C "$1" >"$log" 2>&1 && return 0
    cat "$log" >&2
    return 1
}
