#!/usr/bin/env bash
# Holds the licences, sources and versions of all dependencies to .deny.toml, with cargo-deny. Uses
# one that is installed, or else builds one of a fixed version into target/tools: ten minutes, once.
#
#   scripts/check/deny.sh [--advisories]
#
# --advisories asks for reported vulnerabilities as well, for which it fetches the database of RustSec from
# github.com: left out, after all else has passed, where that cannot be reached.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

readonly version=0.20.2
readonly tools=target/tools
asks_for_advisories=false
for argument in "$@"; do
    case $argument in
        --advisories) asks_for_advisories=true ;;
        *)
            sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" >&2
            exit 2
            ;;
    esac
done

PATH=$PWD/$tools/bin:$PATH
if ! command -v cargo-deny >/dev/null; then
    cargo install --locked --root "$tools" --target-dir "$tools/build" "cargo-deny@$version"
    rm -r "$tools/build"
fi

deny=(cargo deny --locked --config .deny.toml)
"${deny[@]}" check bans licenses sources
if [ "$asks_for_advisories" = true ]; then
    timeout --kill-after=5 300 "${deny[@]}" fetch db ||
        leave_out 'reported vulnerabilities: the database of RustSec cannot be fetched from github.com'
    "${deny[@]}" check advisories
fi
