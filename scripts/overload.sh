#!/usr/bin/env bash
# Sends ten times what two processes of 5 ms can serve, for a minute, whatever comes back; prints
# what was served, how fast the rest was refused, how /health did and what memory it took, beside
# the goals. Exits with 1 if one is missed.
#
#   scripts/overload.sh [--seconds N]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case " $* " in
    *' --help '* | *' -h '*) exec python3 scripts/bench/overload.py --help ;;
esac
# One after the other: built together, the worker would get the tests' features of tokio.
cargo build --quiet --release --locked --bin faas-worker
cargo build --quiet --release --locked --example bench
exec python3 scripts/bench/overload.py "$@"
