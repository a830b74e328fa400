#!/usr/bin/env bash
# Everything that must hold before a change is taken: what CI runs, in the same order.
# Prints each command before it runs it, and its time, and stops at the first that fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step='none'
at_exit() {
    local status=$?
    if [ "$status" -ne 0 ]; then
        printf '\ncheck.sh: failed, exit status %s: %s\n' "$status" "$step" >&2
    fi
}
trap at_exit EXIT

fail() {
    printf 'check.sh: %s\n' "$1" >&2
    exit 1
}

run() {
    step=$*
    printf '\n$ %s\n' "$step"
    local begun=$SECONDS
    "$@"
    printf '(%s s)\n' $((SECONDS - begun))
}

needs() {
    step="looking for $1"
    command -v "$1" >/dev/null || fail "$1 is not installed: $2"
}

needs cargo 'see https://rustup.rs'
needs cargo-fmt 'rustup component add rustfmt'
needs cargo-clippy 'rustup component add clippy'
needs shellcheck 'a package of that name in most distributions'
needs python3 'a package of that name in most distributions'
# Without CI=true the tests that need it are skipped, and say so.
if [ "${CI:-}" = true ]; then
    needs node 'the package nodejs in most distributions'
    needs valgrind 'a package of that name in most distributions'
fi
needs c++ 'the package g++ in most distributions'

run scripts/check/toolchain.sh
run cargo fmt --check
run cargo clippy --locked --all-targets -- -D warnings
run cargo clippy --locked --lib --tests --features otlp -- -D warnings

# The library part that handlers use, alone: no server may come with it.
handler=(--no-default-features --features handler)
run cargo clippy --locked --lib --examples "${handler[@]}" -- -D warnings
run cargo tree --locked --edges normal --prefix none "${handler[@]}"
crates=$(cargo tree --locked --edges normal --prefix none --format '{p}' "${handler[@]}")
if server=$(grep -wE '^(hyper|tokio|clap|tracing)' <<<"$crates"); then
    fail "the feature 'handler' pulls in ${server//$'\n'/, }"
fi

# Where cargo-deny is installed; to build it takes minutes, which the workflow of CI gives to it.
if PATH=$PWD/target/tools/bin:$PATH command -v cargo-deny >/dev/null; then
    run scripts/check/deny.sh
else
    printf '\nleft out: scripts/check/deny.sh: cargo-deny is not installed\n'
fi

run env RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
run env RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

run shellcheck .ci/run scripts/*.sh scripts/*/*.sh tests/docker/*.sh \
    examples/shell/*sh examples/deploy/*/*.sh
# Not python3 -m py_compile, which leaves its output beside the sources.
run python3 -c 'import sys
for name in sys.argv[1:]:
    compile(open(name, encoding="utf-8").read(), name, "exec")' \
    examples/python/*.py examples/deploy/*/*.py scripts/*.py scripts/release/*.py scripts/bench/*.py scripts/bench/contenders/*.py \
    scripts/check/*.py scripts/check/lambda/peer/*.py \
    tests/docker/*.py

# The README's own test command.
run cargo test --locked

# Parts of them with workers of two threads; scripts/nightly.sh has all of them.
run env FAAS_TEST_THREADS=2 cargo test --locked --test it -- \
    ahead:: dying:: queue:: reload:: stopping:: recycling:: load:: http::
# The hand-over between threads, in every order.
run scripts/check/model.sh

# Speed must not leak away: the instructions of a request's path against the recorded ones.
if command -v valgrind >/dev/null; then
    run scripts/check/instructions.sh
else
    printf '\nleft out: scripts/check/instructions.sh: valgrind is not installed\n'
fi
# That the tests see a rule which is gone, for a few rules; scripts/mutate.py has all of them.
run scripts/mutate.py --sample
run cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
# That the targets are built and run; scripts/nightly.sh gives them the time to find something.
run scripts/fuzz.sh --seconds 5
printf '\ncheck.sh: all passed\n'
