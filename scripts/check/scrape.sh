#!/usr/bin/env bash
# Scrapes a worker ten times a second while it answers as fast as it can, in rounds that alternate with
# rounds without scrapes. Prints the processor time of a scrape, its latency under the load, and the
# latency of requests with and without scrapes; exits with 1 if a scrape costs 5 ms of processor time or
# more, or if the requests' 99th percentile with scrapes is more than half above that without.
#
#   scripts/check/scrape.sh [--rounds N]     two minutes and a release build
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# One after the other: built together, the worker would get the tests' features of tokio.
cargo build --quiet --release --locked --bin faas-worker
cargo build --quiet --release --locked --example bench --example echo
exec python3 scripts/check/scrape.py "$@"
