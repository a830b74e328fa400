#!/usr/bin/env bash
# A long storm: misbehaving handlers, clients that hang up and stall, kills and squeezed limits,
# each answer held to its own request and to the handler's ledger. Prints a table of the faults
# injected and what came of them; exits with 1 at the first broken promise.
#
#   scripts/storm.sh [--minutes N] [--requests N] [--seed S] [--threads N] [--mode NAME]...
#
# Modes: without-ids, with-ids, in-order and concurrent are a handler that misbehaves by chance;
# forge is handlers of many kinds that print what they are given, and payloads made of forged
# replies. Without --mode all are run. The time is a limit for all of them together; without
# --requests it is what ends the storm. With --threads, the workers serve on that many threads.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

minutes=10 requests=1000000000 seed=$RANDOM modes=()
usage() {
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
        --minutes) minutes=$2 ;;
        --requests) requests=$2 ;;
        --seed) seed=$2 ;;
        --threads) export FAAS_TEST_THREADS=$2 ;;
        --mode) modes+=(--mode "$2") ;;
        *) usage ;;
    esac
    shift 2
done

cargo build --release --locked --examples
exec cargo test --release --locked --test storm -- \
    --minutes "$minutes" --requests "$requests" --seed "$seed" "${modes[@]}"
