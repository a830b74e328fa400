#!/usr/bin/env bash
# Goes through the orders in which two threads can hand calls over to each other, with loom: none is
# lost, run twice, or left waiting while a process is idle. The lock and the atomics of the hand-over
# are loom's then, so it is a build of its own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

RUSTFLAGS='--cfg faas_model' exec cargo test --locked --lib --target-dir target/model -- \
    pool::model threads::mailbox::model "$@"
