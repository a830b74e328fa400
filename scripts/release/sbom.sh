#!/usr/bin/env bash
# Writes the packages of the release program as a CycloneDX document, by cargo-cyclonedx: names, versions,
# licences, hashes and who needs whom. Uses a cargo-cyclonedx that is installed, or else builds one of a
# fixed version into target/tools: some minutes, once.
#
#   scripts/release/sbom.sh ARCHITECTURE PROGRAM MESSAGES OUTPUT.cdx.json
#
# ARCHITECTURE is amd64 or arm64; MESSAGES are what scripts/release/program.sh writes beside PROGRAM.
#
# Packages that are linked into PROGRAM have the scope "required". Those that ran while it was built (macros,
# build scripts) have the scope "excluded". The SHA-256 of PROGRAM is in the document.
# The time in the document is SOURCE_DATE_EPOCH, or that of the commit. scripts/check/sbom.sh compares the
# document with Cargo's own list.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

usage() {
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0"
}

readonly version=0.5.9 tools=target/tools
case ${1:-} in
    amd64) target=x86_64-unknown-linux-gnu ;;
    arm64) target=aarch64-unknown-linux-gnu ;;
    --help)
        usage
        exit 0
        ;;
    *)
        usage >&2
        exit 2
        ;;
esac
program=${2:?of which program?} messages=${3:?} output=${4:?where to}

PATH=$PWD/$tools/bin:$PATH
if ! command -v cargo-cyclonedx >/dev/null; then
    cargo install --locked --root "$tools" --target-dir "$tools/build" "cargo-cyclonedx@$version"
    rm -r "$tools/build"
fi
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# cargo-cyclonedx writes beside the manifest; a copy keeps the checkout clean. Our tests' targets and
# dependencies are left out, as the files that they name would be missing.
awk '/^\[/ {keep = !/^\[dev-dependencies/ && !/^\[\[/} keep' Cargo.toml >"$work/Cargo.toml"
cp Cargo.lock "$work/"
mkdir "$work/src"
touch "$work/src/lib.rs" "$work/src/main.rs"
cargo cyclonedx --quiet --manifest-path "$work/Cargo.toml" --target "$target" --describe binaries \
    --format json --spec-version 1.5

# cargo-cyclonedx reads `cargo metadata`, which also has packages of features that nothing turns on, and
# build dependencies of packages without a build script. The compiler's calls have what is used.
cargo tree --locked --edges normal,no-proc-macro --target "$target" --prefix none --format '{p}' \
    >"$work/linked"
mkdir -p "$(dirname "$output")"
python3 scripts/release/sbom.py "$work/faas-worker_bin.cdx.json" "$work/linked" "$messages" \
    "$program" >"$output"
