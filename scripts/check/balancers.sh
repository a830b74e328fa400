#!/usr/bin/env bash
# Restarts three workers one after the other, again and again, behind nginx, HAProxy and Caddy with the
# files of examples/deploy/balancers, under a steady load. No request may fail.
#
#   scripts/check/balancers.sh                          20,000 requests each; some three minutes
#   scripts/check/balancers.sh --requests 4000 haproxy  fewer, and one of them; each is rolled once at least
#   scripts/check/balancers.sh --requests 1 --rate 200 --together
#                                                       one roll of each at the same time: half a minute
#
# FAAS_WORKER names another worker than the one that is built here. Needs nginx, haproxy and caddy:
# left out without.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

PATH=$PATH:/usr/sbin
for tool in nginx haproxy caddy python3; do
    needs "$tool" "$tool"
done
if [ -z "${FAAS_WORKER:-}" ]; then
    cargo build --quiet --locked --bin faas-worker
    FAAS_WORKER=${CARGO_TARGET_DIR:-target}/debug/faas-worker
fi
export FAAS_WORKER
exec python3 scripts/check/balancers.py "$@"
