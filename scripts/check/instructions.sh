#!/usr/bin/env bash
# Counts the instructions of a request's path with valgrind, and fails when they are more than 5 %
# above the recorded counts in scripts/bench/instructions.json, so that speed cannot leak away
# unseen. The count does not depend on how busy the machine is.
#
#   scripts/check/instructions.sh [--record]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for tool in valgrind python3; do
    command -v "$tool" >/dev/null || {
        printf 'check/instructions.sh: %s is not installed: a package of that name in most distributions\n' "$tool" >&2
        exit 1
    }
done
cargo build --quiet --release --locked --example bench
exec python3 scripts/bench/instructions.py "$@"
