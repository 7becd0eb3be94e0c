#!/usr/bin/env bash
# Lints and tests everything. Installs what is missing, and says so first.
#
#   ./test.sh            all of it
#   ./test.sh --yes      do not ask before installing
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '\n== %s\n' "$*"; }

assume_yes=${CI:-}
[ "${1:-}" = "--yes" ] && assume_yes=1

# Asks before something is installed when a person is there to answer.
confirm() {
    if [ -z "$assume_yes" ] && [ -t 0 ]; then
        read -r -p "$1 Go on? [y/N] " answer
        case "$answer" in y | Y | yes) ;; *) echo "Not installed, so the tests cannot run." >&2; exit 1 ;; esac
    else
        echo "$1"
    fi
}

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# command:package of what the tests drive: a real Prometheus, vmagent, what azurite runs on, and what cuts
# networks of their own.
install_debian_packages() {
    local missing=() pair
    for pair in prometheus:prometheus promtool:prometheus vmagent:victoria-metrics node:nodejs npm:npm ip:iproute2 iptables:iptables \
        cc:gcc; do
        command -v "${pair%%:*}" > /dev/null || missing+=("${pair##*:}")
    done
    [ ${#missing[@]} = 0 ] && return
    mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
    command -v apt-get > /dev/null || {
        echo "Missing: ${missing[*]} (Debian's names). Install them and run this again." >&2
        exit 1
    }
    confirm "The tests need these Debian packages, which will be installed: ${missing[*]}."
    as_root apt-get update -qq
    # Debian starts the services of these packages; the tests start their own.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# An Azure blob server, kept outside the checkout.
install_azurite() {
    local dir=${XDG_CACHE_HOME:-$HOME/.cache}/weir-tests/azurite
    export WEIR_AZURITE=${WEIR_AZURITE:-$dir/node_modules/.bin/azurite-blob}
    [ -x "$WEIR_AZURITE" ] && return
    confirm "The tests need azurite 3.35.0 from npm, which will be installed into $dir."
    mkdir -p "$dir"
    npm install --silent --no-fund --no-audit --prefix "$dir" azurite@3.35.0
}

command -v cargo > /dev/null || { echo "cargo is missing: install Rust 1.95 or newer." >&2; exit 1; }
install_debian_packages
install_azurite

say "format"
cargo fmt --all --check
say "lints"
cargo clippy --workspace --all-targets -- -D warnings
say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
say "tests"
cargo test --workspace
say "all passed"
