#!/usr/bin/env bash
# Counts the instructions of a request's path with valgrind, and fails when they are more than 5 %
# above the recorded counts in scripts/bench/instructions.json, so that speed cannot leak away
# unseen. The count does not depend on how busy the machine is.
#
#   scripts/check/instructions.sh [--record]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

for tool in valgrind python3; do
    needs "$tool" "$tool"
done
cargo build --quiet --release --locked --example bench
exec python3 scripts/bench/instructions.py "$@"
