#!/usr/bin/env bash
# Holds a release's CycloneDX document to the schema of its version, to Cargo.lock and to the packages that
# the compiler was called for (MESSAGES, which scripts/release/program.sh writes beside PROGRAM).
#
#   scripts/check/sbom.sh [ARCHITECTURE PROGRAM MESSAGES DOCUMENT]
#
# Without arguments, makes a document for the machine's own architecture by a debug build. Needs python3-venv, and the
# network once for its tools, which go into target.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly packages=scripts/check/sbom.txt tools=target/sbom
case $# in
    0 | 4) ;;
    *)
        sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" >&2
        exit 2
        ;;
esac
mkdir -p "$tools"
if ! cmp -s "$packages" "$tools/python/installed.txt"; then
    python3 -m venv --clear "$tools/python"
    "$tools/python/bin/pip" install --quiet --disable-pip-version-check -r "$packages"
    cp "$packages" "$tools/python/installed.txt"
fi

if [ $# -eq 4 ]; then
    program=$2 messages=$3 document=$4
else
    case $(uname -m) in
        x86_64) architecture=amd64 target=x86_64-unknown-linux-gnu ;;
        aarch64) architecture=arm64 target=aarch64-unknown-linux-gnu ;;
        *)
            echo "check/sbom.sh: no releases for $(uname -m)" >&2
            exit 1
            ;;
    esac
    program=target/$target/debug/faas-worker messages=$tools/messages document=$tools/faas-worker.cdx.json
    CARGO_TARGET_DIR=target cargo build --quiet --locked --bin faas-worker --target "$target" \
        --message-format json-render-diagnostics >"$messages"
    scripts/release/sbom.sh "$architecture" "$program" "$messages" "$document"
fi
exec "$tools/python/bin/python" scripts/check/sbom.py "$document" "$program" "$messages"
