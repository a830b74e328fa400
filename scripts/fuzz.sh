#!/usr/bin/env bash
# Coverage-guided fuzzing of the parts that read what others wrote: lines, replies, ready lines,
# bodies, whole conversations, and HTTP on a real socket. Stops at the first finding and says
# where the input is kept.
#
#   scripts/fuzz.sh [--seconds N] [--target NAME]...
#
# N is for each target. Works on any toolchain: libFuzzer comes with the crate libfuzzer-sys and
# needs a C++ compiler; the coverage counters are rustc's own. What is found to be interesting is
# kept in target/fuzz/corpus and used the next time; tests/fuzz/corpus holds what to begin with.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=60 targets=()
usage() {
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
        --seconds) seconds=$2 ;;
        --target) targets+=("$2") ;;
        *) usage ;;
    esac
    shift 2
done
[ "${#targets[@]}" -gt 0 ] || targets=(framing reply ready body conversation http)

# What cargo-fuzz sets without a sanitizer: safe Rust needs none, and these are no nightly flags.
flags=(
    -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
    -Ccodegen-units=1
)
triple=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags are not for build scripts.
RUSTFLAGS="${flags[*]}" CARGO_TARGET_DIR=target/fuzz/build \
    cargo build --release --locked --target "$triple" --manifest-path tests/fuzz/Cargo.toml

for target in "${targets[@]}"; do
    corpus=target/fuzz/corpus/$target
    mkdir -p "$corpus" target/fuzz/findings
    printf '\n%s, %s s\n' "$target" "$seconds"
    "target/fuzz/build/$triple/release/$target" \
        -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 \
        -dict=tests/fuzz/dictionary.txt -artifact_prefix="target/fuzz/findings/$target-" \
        -print_final_stats=1 -verbosity=0 \
        "$corpus" "tests/fuzz/corpus/$target"
done
printf '\nfuzz.sh: nothing found\n'
