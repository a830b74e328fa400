#!/usr/bin/env bash
# Builds the static release program so that the same source gives the same bytes in any directory.
#
#   scripts/release/program.sh ARCHITECTURE OUTPUT      ARCHITECTURE: amd64 or arm64
#   scripts/release/program.sh --can ARCHITECTURE       status 0 if this machine can build it, else why not
#   scripts/release/program.sh --libc ARCHITECTURE      the C library that would be linked in
#
# Writes OUTPUT.messages too: what Cargo compiled, which the list of packages is made from.
# The bytes depend on the source, the version of Rust, the C library that is linked in, and the variable
# FAAS_REVISION (default: the commit, and nothing for a tree with changes). They do not depend on the
# directory, on CARGO_HOME, on the user or on the time.
# Needs for another architecture than the machine's: `rustup target add`, and a cross compiler
# (gcc-aarch64-linux-gnu with libc6-dev-arm64-cross, or gcc-x86-64-linux-gnu with libc6-dev-amd64-cross).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
}

fail() {
    printf 'release/program.sh: %s\n' "$1" >&2
    exit 1
}

if [ "${1:-}" = --help ]; then
    usage
    exit 0
fi
[ $# -eq 2 ] || {
    usage >&2
    exit 2
}
question='' output=$2 architecture=$1
case $1 in
    --can | --libc) question=$1 architecture=$2 ;;
esac
case $architecture in
    amd64) cpu=x86_64 ;;
    arm64) cpu=aarch64 ;;
    *) fail "no such architecture: $architecture: expected amd64 or arm64" ;;
esac
target=$cpu-unknown-linux-gnu

rustc=${RUSTC:-rustc}
host=$("$rustc" -vV | sed -n 's/^host: //p')
linker=cc
if [ "$target" != "$host" ]; then
    linker=$cpu-linux-gnu-gcc
fi
libraries=$("$rustc" --print target-libdir --target "$target")
[ -n "$(find "$libraries" -name 'libstd-*.rlib' -print -quit 2>/dev/null)" ] ||
    fail "$rustc has no standard library for $target: rustup target add $target"
command -v "$linker" >/dev/null || fail "$linker is not installed, which links for $architecture"
# The name of a file that the linker does not find is printed as it was given.
archive=$("$linker" -print-file-name=libc.a)
[ "$archive" != libc.a ] || fail "$linker finds no libc.a, which a static program has in it"
case $question in
    --can) exit 0 ;;
    --libc)
        # The shared library of the same package names itself.
        grep --text --only-matching --max-count 1 'GNU C Library [[:print:]]*' \
            "$("$linker" -print-file-name=libc.so.6)"
        exit 0
        ;;
esac

if [ -z "${FAAS_REVISION+set}" ]; then
    FAAS_REVISION=
    if [ -z "$(git status --porcelain --untracked-files=no)" ]; then
        FAAS_REVISION=$(git rev-parse HEAD)
    fi
fi
export FAAS_REVISION
# Build scripts and macros that write a time into their output take that of the commit instead.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

# Paths of this machine that panic messages would name. The variable overrides rustflags of any
# configuration file, and of CARGO_HOME's too, which could differ between machines.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
build=${CARGO_TARGET_DIR:-$PWD/target}
flags=(
    -C target-feature=+crt-static
    -C "linker=$linker"
    "--remap-path-prefix=$PWD=/faas-worker"
    "--remap-path-prefix=$build=/faas-worker/target"
    "--remap-path-prefix=$cargo_home=/cargo"
    "--remap-path-prefix=$("$rustc" --print sysroot)=/rust"
)
# Words are parted by the unit separator, so that a path may have spaces.
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf '%s' "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
# The target is named, though it may be the machine's own: without that the flags would hold for
# procedural macros too, which cannot be static.
mkdir -p "$(dirname "$output")"
CARGO_TARGET_DIR=$build cargo build --locked --release --bin faas-worker --target "$target" \
    --message-format json-render-diagnostics >"$output.messages"
install -D --mode 755 "$build/$target/release/faas-worker" "$output"
