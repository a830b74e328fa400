#!/usr/bin/env bash
# Builds the release program twice, from two directories, with two homes of Cargo, time zones, languages
# and times of files, and fails unless the bytes are the same. Prints the SHA-256 of each build.
#
#   scripts/check/reproducible.sh [--against PROGRAM] [ARCHITECTURE]
#
# ARCHITECTURE is amd64 or arm64; without it, the machine's own. --against compares one build with a program
# that there is, of the same commit and FAAS_REVISION. Builds from the files in git as they lie in the
# directory; in a directory of its own below target, and only there. Some minutes a build.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
}

architecture='' against=''
while [ $# -gt 0 ]; do
    case $1 in
        --help)
            usage
            exit 0
            ;;
        --against)
            against=${2:?--against: which program?}
            shift
            ;;
        amd64 | arm64) architecture=$1 ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
    shift
done
case ${architecture:-$(uname -m)} in
    amd64 | x86_64) architecture=amd64 ;;
    arm64 | aarch64) architecture=arm64 ;;
    *) usage >&2; exit 2 ;;
esac
scripts/release/program.sh --can "$architecture"

work=$PWD/target/reproducible-$$
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"

# Outside a checkout both are needed; they are part of what must be the same.
export FAAS_REVISION="${FAAS_REVISION-$(git rev-parse HEAD)}"
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}"
crates=${CARGO_HOME:-$HOME/.cargo}
# Below the homes made here rustup finds the toolchains all the same.
export RUSTUP_HOME="${RUSTUP_HOME:-$HOME/.rustup}"

# Once, so that an edit in the meantime is in neither.
git ls-files -z | tar --create --null --files-from - >"$work/source.tar"

# build NAME DIRECTORY: a copy of the source at DIRECTORY, and its program at $work/NAME.
build() {
    local name=$1 directory=$work/$2 begun=$SECONDS
    mkdir -p "$directory/source" "$directory/cargo/registry"
    # The times of the copies are those of the copying.
    tar --extract --touch --file "$work/source.tar" --directory "$directory/source"
    # What has been downloaded is shared; the sources are unpacked again, at a path of their own.
    for part in cache index; do
        [ ! -d "$crates/registry/$part" ] || ln -s "$crates/registry/$part" "$directory/cargo/registry/$part"
    done
    [ ! -e "$crates/config.toml" ] || ln -s "$crates/config.toml" "$directory/cargo/config.toml"
    CARGO_HOME=$directory/cargo CARGO_TARGET_DIR=$directory/target \
        "$directory/source/scripts/release/program.sh" "$architecture" "$work/$name" >&2
    rm -rf "$directory"
    printf '%s  %s, in %s, %s s\n' "$(sum "$work/$name")" "$name" "$2" $((SECONDS - begun))
}

sum() {
    sha256sum <"$1" | cut -d ' ' -f 1
}

if [ -n "$against" ]; then
    cp "$against" "$work/first"
    printf '%s  first: %s\n' "$(sum "$work/first")" "$against"
else
    TZ=UTC LC_ALL=C build first a
fi
TZ=Asia/Kolkata LC_ALL=C.UTF-8 build second 'another place/with a longer path'
if ! cmp "$work/first" "$work/second"; then
    # What names a place or a time is mostly text.
    diff <(strings "$work/first") <(strings "$work/second") | head -n 20 >&2 || true
    echo "check/reproducible.sh: two builds for $architecture differ" >&2
    exit 1
fi
echo "the same bytes: $architecture, $(stat --format %s "$work/first") bytes"
