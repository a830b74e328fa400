#!/usr/bin/env bash
# Has a real Prometheus scrape a worker that is driven through its outcomes, in both text formats, and
# tries the expressions of the alert rules and of the dashboard in examples/deploy/observability on what
# it has scraped.
#
#   scripts/check/prometheus.sh     half a minute; needs prometheus and promtool: left out without
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

needs prometheus prometheus
needs promtool prometheus
needs python3 python3
cargo build --quiet --locked --bin faas-worker --example misbehave
exec python3 scripts/check/prometheus.py
