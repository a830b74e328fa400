#!/usr/bin/env bash
# Tries what the running worker says of itself: /docs in a real browser, and every operation of
# /openapi.json with schemathesis. Bounded in time; speaks with 127.0.0.1 only, but for fetching
# the two tools, of fixed versions, into target/check-docs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly root=$PWD
readonly tools=target/check-docs
readonly playwright=1.65.1
worker=''

at_exit() {
    local status=$?
    if [ -n "$worker" ]; then
        kill "$worker" 2>/dev/null || true
        wait "$worker" || true
    fi
    if [ "$status" -ne 0 ]; then
        printf '\ncheck/docs.sh: failed, exit status %s\n' "$status" >&2
    fi
}
trap at_exit EXIT

fail() {
    printf 'check/docs.sh: %s\n' "$1" >&2
    exit 1
}

needs() {
    command -v "$1" >/dev/null || fail "$1 is not installed: $2"
}

# Sets `url` to where the worker listens that runs this handler.
start() {
    local log=$tools/worker.log
    # Here and not by the shell that becomes the worker: what the last one wrote must be gone now.
    : >"$log"
    target/debug/faas-worker --port 0 --log-format json --allow-host worker.test -- "$@" \
        </dev/null >>"$log" 2>&1 &
    worker=$!
    local tries=0 address=''
    until address=$(sed -n 's/.*"address":"\([0-9.:]*\)".*/\1/p' "$log") && [ -n "$address" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 200 ] || fail "the worker does not listen: $(cat "$log")"
        sleep 0.1
    done
    url=http://$address
}

stop() {
    kill "$worker"
    wait "$worker" || fail "the worker ended with exit status $?"
    worker=''
}

CHROMIUM=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome ||
    fail 'no chromium is installed: the package of that name in most distributions')}
export CHROMIUM
needs cargo 'see https://rustup.rs'
needs node 'the package nodejs in most distributions'
needs npm 'the package npm in most distributions'
needs python3 'a package of that name in most distributions'
python3 -c 'import ensurepip' 2>/dev/null ||
    fail 'python3 cannot make environments: the package python3-venv in Debian'

mkdir -p "$tools"
cargo build --locked --bin faas-worker --example decode_type_a --example echo
if [ ! -e "$tools/$playwright" ]; then
    npm install --prefix "$tools" --no-save --no-audit --no-fund --ignore-scripts \
        "playwright-core@$playwright"
    touch "$tools/$playwright"
fi
if ! cmp -s scripts/check/docs.txt "$tools/python/installed.txt"; then
    python3 -m venv --clear "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check -r scripts/check/docs.txt
    cp scripts/check/docs.txt "$tools/python/installed.txt"
fi

printf '\n/docs in a browser\n'
start target/debug/examples/decode_type_a
NODE_PATH=$tools/node_modules timeout 120 node scripts/check/docs.mjs "$url" target/docs.png
stop
printf 'screenshots: target/docs.png target/docs-sent.png\n'

printf '\n/openapi.json with schemathesis\n'
start target/debug/examples/echo
# It leaves its notes where it is run.
(cd "$tools" && timeout 120 python/bin/schemathesis --config-file "$root/scripts/check/docs.toml" \
    run "$url/openapi.json")
stop
printf '\ncheck/docs.sh: all passed\n'
