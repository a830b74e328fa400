#!/usr/bin/env bash
# Runs a program of another architecture under qemu: it serves requests, answers health checks, takes a batch
# and ends in order. The kernel is told of qemu in a namespace of its own, so nothing is left on the machine.
#
#   scripts/check/emulated.sh PROGRAM       for example what scripts/release/program.sh arm64 makes
#
# Needs qemu-user-static and Linux 6.7 or later: left out without. A few seconds.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

if [ "${1:-}" = --inside ]; then
    program=$2 qemu=$3 work=$4
else
    [ $# -eq 1 ] || {
        sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "$0" >&2
        exit 2
    }
    case $(od --address-radix n --format x2 --skip-bytes 18 --read-bytes 2 "$1") in
        *00b7) cpu=aarch64 ;;
        *003e) cpu=x86_64 ;;
        *)
            echo "check/emulated.sh: not a program for amd64 or arm64: $1" >&2
            exit 1
            ;;
    esac
    if ! qemu=$(command -v "qemu-$cpu-static"); then
        leave_out "qemu-$cpu-static is not installed (Debian: qemu-user-static)"
    fi
    if ! unshare --user --map-root-user --mount mount -t binfmt_misc none /proc/sys/fs/binfmt_misc 2>/dev/null; then
        leave_out 'the kernel has no binfmt_misc for each namespace'
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    unshare --user --map-root-user --mount "$0" --inside "$(realpath "$1")" "$qemu" "$work"
    exit
fi

# ---- In the namespace -------------------------------------------------------------------------------

fail() {
    printf 'check/emulated.sh: %s\n' "$1" >&2
    tail -n 20 "$work/log" >&2
    exit 1
}

mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
# The first 20 bytes of an ELF file: what all have, and the architecture at the end.
kind='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00'
kind+=$(od --address-radix n --format x1 --skip-bytes 18 --read-bytes 2 "$program" | sed 's/ /\\x/g')
mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf ':faas-worker:M::%s:%s:%s:F' "$kind" "$mask" "$qemu" >/proc/sys/fs/binfmt_misc/register

"$program" --version
# Port 0: the kernel chooses, the log names it.
: >"$work/log"
"$program" --port 0 --processes 2 -- examples/shell/decode_type_a.sh >"$work/log" 2>&1 &
worker=$!
trap 'kill -KILL "$worker" 2>/dev/null || true' EXIT
address=''
for _ in {1..600}; do
    address=$(sed -n 's/.*"listening","address":"\([^"]*\)".*/\1/p' "$work/log")
    if [ -n "$address" ] && PORT=${address##*:} "$program" health --ready >/dev/null 2>&1; then break; fi
    kill -0 "$worker" 2>/dev/null || fail 'the worker has ended'
    sleep 0.1
done
PORT=${address##*:} "$program" health --ready || fail 'not ready within a minute'
answer=$(python3 tests/docker/client.py post "$address" dev-1,42.5,1678886400)
case $answer in
    '200 '*'"metric_value":42.5'*) echo "$answer" ;;
    *) fail "answered: $answer" ;;
esac
kill -TERM "$worker"
wait "$worker" || fail "ended with status $?"
printf '"dev-1,42.5,1678886400"\n' |
    "$program" map --json -- examples/shell/decode_type_a.sh 2>>"$work/log" >"$work/batch" || fail 'the batch failed'
grep --quiet '"metric_value":42.5' "$work/batch" || fail "the batch has no reading: $(cat "$work/batch")"
echo 'served, was asked for its health, ended in order, and took a batch'
