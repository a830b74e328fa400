#!/usr/bin/env bash
# Has a worker with the feature otlp send its traces to a receiver that decodes them by OpenTelemetry's own
# definitions: names, parents, attributes, repetitions, the end of the worker, and receivers that are slow,
# dead or silent.
#
#   scripts/check/otlp.sh     half a minute and two builds; needs the network once, and python3 with venv: left out without
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

readonly packages=scripts/check/otlp.txt tools=target/otlp
needs_venv
mkdir -p "$tools"
if ! cmp -s "$packages" "$tools/python/installed.txt"; then
    python3 -m venv --clear "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check -r "$packages"
    cp "$packages" "$tools/python/installed.txt"
fi
cargo test --quiet --locked --features otlp --lib -- traces:: trace_context:: http::api::tests::
cargo build --quiet --locked --features otlp --bin faas-worker
# The next build without the feature takes its place.
cp target/debug/faas-worker "$tools/faas-worker"
exec "$tools/python/bin/python" scripts/check/otlp.py "$tools/faas-worker"
