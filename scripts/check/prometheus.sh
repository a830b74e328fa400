#!/usr/bin/env bash
# Has a real Prometheus scrape a worker that is driven through its outcomes, in both text formats, and
# tries the expressions of the alert rules and of the dashboard in examples/deploy/observability on what
# it has scraped.
#
#   scripts/check/prometheus.sh     half a minute; needs prometheus and promtool (Debian: prometheus)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for tool in prometheus promtool python3; do
    command -v "$tool" >/dev/null || {
        printf 'prometheus.sh: %s is not installed\n' "$tool" >&2
        exit 1
    }
done
cargo build --quiet --locked --bin faas-worker --example misbehave
exec python3 scripts/check/prometheus.py
