#!/usr/bin/env bash
# Holds the licences, sources and versions of all dependencies to .deny.toml, with cargo-deny. Uses
# one that is installed, or else builds one of a fixed version into target/tools: some minutes, once.
#
#   scripts/check/deny.sh [--installed] [--advisories]
#
# --installed does nothing but say so where there is no cargo-deny. --advisories asks for reported
# vulnerabilities as well, for which it fetches the database of RustSec from github.com.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly version=0.20.2
readonly tools=target/tools
checks=(bans licenses sources) may_install=true
for argument in "$@"; do
    case $argument in
        --installed) may_install=false ;;
        --advisories) checks+=(advisories) ;;
        *)
            sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
            exit 2
            ;;
    esac
done

PATH=$PWD/$tools/bin:$PATH
if ! command -v cargo-deny >/dev/null; then
    if [ "$may_install" = false ]; then
        printf 'skipped: scripts/check/deny.sh, because cargo-deny is not installed\n'
        exit 0
    fi
    cargo install --locked --root "$tools" --target-dir "$tools/build" "cargo-deny@$version"
    rm -r "$tools/build"
fi
cargo deny --locked --config .deny.toml check "${checks[@]}"
