#!/usr/bin/env bash
# What isolation costs: how long the start of a process takes with the launcher step and without,
# in one run. Takes some seconds after the build; needs nothing but cargo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cargo build --locked --release --examples
cargo test --locked --release --test it -- --ignored --exact --nocapture \
    start_cost::what_the_launcher_step_costs
