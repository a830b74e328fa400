#!/usr/bin/env bash
# Attacks a worker in a memory control group of 128 MiB, at its defaults and with the settings of
# docker-compose.yaml: by each attack alone, then by all at once. Prints one line an attack, and
# exits with 1 if the worker died, /health was late, or memory was not given back.
#
#   scripts/check/memory.sh [--seconds N] [--each N] [--settings NAME] [--attack NAME]... [--p99 MS]
#
# --seconds is for all at once (20), --each for one alone (4), 0 leaves them out; settings are
# defaults and compose. FAAS_WORKER names another worker than the one that is built here.
# Needs root and a control group hierarchy for memory, of version 1 or 2: left out without.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

needs_root
name=faas-worker-memory-$$
if [ -f /sys/fs/cgroup/memory/memory.limit_in_bytes ]; then
    group=/sys/fs/cgroup/memory/$name limit=memory.limit_in_bytes
elif grep -qw memory /sys/fs/cgroup/cgroup.controllers 2>/dev/null; then
    group=/sys/fs/cgroup/$name limit=memory.max
    grep -qw memory /sys/fs/cgroup/cgroup.subtree_control ||
        echo +memory >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null ||
        leave_out 'the memory controller cannot be turned on here'
else
    leave_out 'there is no control group hierarchy for memory'
fi
mkdir "$group" 2>/dev/null || leave_out "$group cannot be made"
trap 'rmdir "$group" 2>/dev/null || { sleep 1; rmdir "$group"; }' EXIT
echo $((128 << 20)) >"$group/$limit"
# Where the kernel counts swap, it must not be what saves the worker.
[ ! -f "$group/memory.swap.max" ] || echo 0 >"$group/memory.swap.max"

if [ -z "${FAAS_WORKER:-}" ]; then
    cargo build --quiet --release --locked --bin faas-worker
    FAAS_WORKER=target/release/faas-worker
fi
ulimit -n "$(ulimit -Hn)"
python3 tests/docker/memory.py --worker "$FAAS_WORKER" --group "$group" "$@"
