#!/usr/bin/env bash
# Says whether the Rust in use is the oldest that Cargo.toml promises to build with, and fails if it
# is older still. --name prints that oldest one, as rustup names it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

promised=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
[ -n "$promised" ] || {
    echo 'check/toolchain.sh: Cargo.toml has no rust-version' >&2
    exit 1
}
if [ "${1:-}" = --name ]; then
    printf '%s\n' "$promised"
    exit 0
fi

used=$(rustc --version | cut -d ' ' -f 2)
oldest=$(printf '%s\n%s\n' "$promised" "${used%%-*}" | sort --version-sort | head -n 1)
if [ "$oldest" != "$promised" ]; then
    printf 'check/toolchain.sh: Rust %s is older than the promised %s\n' "$used" "$promised" >&2
    exit 1
fi
case $used in
    "$promised" | "$promised".*) printf 'Rust %s is the promised minimum\n' "$used" ;;
    *) printf 'Rust %s is newer than the promised minimum, %s; the job msrv has that one\n' "$used" "$promised" ;;
esac
