#!/usr/bin/env bash
# Runs examples/deploy/spark on a Spark of two executors, which it starts and stops itself: a million
# lines in four partitions, with one executor killed in mid-run, against plain Python; and what pipe()
# does to a command's environment and exit status.
#
#   scripts/check/spark.sh [LINES]     a million; some minutes
#
# Fetches pyspark, of a fixed version, into target/.
# Needs java 17 or later and python3 with venv (Debian: default-jre-headless, python3-venv): left
# out without. FAAS_WORKER names another worker than the one that is built here. All other files lie in a
# temporary folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

needs java default-jre-headless
needs_venv

if [ -z "${FAAS_WORKER:-}" ]; then
    cargo build --quiet --release --locked --bin faas-worker
    FAAS_WORKER=${CARGO_TARGET_DIR:-target}/release/faas-worker
fi
worker=$(realpath "$FAAS_WORKER")
unset FAAS_WORKER

tools=target/check-spark
mkdir -p "$tools"
if ! cmp -s scripts/check/spark.txt "$tools/python/installed.txt"; then
    python3 -m venv --clear "$tools/python"
    timeout 600 "$tools/python/bin/pip" install --quiet --disable-pip-version-check \
        -r scripts/check/spark.txt
    cp scripts/check/spark.txt "$tools/python/installed.txt"
fi
exec timeout --kill-after=30 1500 "$tools/python/bin/python" scripts/check/spark.py "$worker" "${1:-1000000}"
