#!/usr/bin/env bash
# The tests of AWS Lambda, passed by AWS's own clients as well: that shows that the tests' server keeps
# to the rules of Lambda's runtime API. Installs the client for Python in a virtual environment and builds
# the one in Rust, both below target/lambda.
#
#   scripts/check/lambda.sh     some minutes the first time, then a minute
#
# Needs the network the first time, and python3 with venv: left out without.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

readonly AWSLAMBDARIC=4.2.2
needs_venv
target=${CARGO_TARGET_DIR:-$PWD/target}
clients=$target/lambda
peer=scripts/check/lambda/peer

if ! "$clients/python/bin/python3" -c \
    "import awslambdaric; assert awslambdaric.__version__ == '$AWSLAMBDARIC'" 2>/dev/null; then
    python3 -m venv --clear "$clients/python"
    timeout 600 "$clients/python/bin/pip" install --quiet "awslambdaric==$AWSLAMBDARIC"
fi
timeout 1200 cargo build --quiet --locked --manifest-path "$peer/Cargo.toml" --target-dir "$clients/peer"
ln -sf peer/debug/lambda-peer "$clients/lambda-peer"
timeout 1200 cargo build --quiet --locked --bin faas-worker --example misbehave
exec env FAAS_TEST_LAMBDA_CLIENTS="$clients" timeout 600 \
    cargo test --locked --test it -- lambda::
