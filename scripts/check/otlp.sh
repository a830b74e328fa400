#!/usr/bin/env bash
# Has a worker with the feature otlp send its traces to a receiver that decodes them by OpenTelemetry's own
# definitions: names, parents, attributes, repetitions, the end of the worker, and receivers that are slow,
# dead or silent.
#
#   scripts/check/otlp.sh     half a minute and two builds; needs python3 with venv, and the network once
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly packages=scripts/check/otlp.txt tools=target/otlp
if ! python3 -c 'import ensurepip' 2>/dev/null; then
    printf 'check/otlp.sh: python3 cannot make environments: the package python3-venv in Debian\n' >&2
    exit 1
fi
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
