#!/usr/bin/env bash
# Runs the commands of docs/batch.md with GNU parallel: blocks of a stream and of a file keep their order,
# the exit status counts the failed blocks, and files go on after the whole was killed.
#
#   scripts/check/parallel.sh     a quarter of a minute
#
# Needs GNU parallel (Debian: parallel): left out without. FAAS_WORKER names another worker than the one that
# is built here. All files lie in a temporary folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=/dev/null
source scripts/check/needs.sh

case $(parallel --version 2>/dev/null || true) in
    'GNU parallel'*) ;;
    *) leave_out 'GNU parallel is not installed (Debian: parallel)' ;;
esac
if [ -z "${FAAS_WORKER:-}" ]; then
    cargo build --quiet --locked --bin faas-worker
    FAAS_WORKER=${CARGO_TARGET_DIR:-target}/debug/faas-worker
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$work/bin" "$work/parts" "$work/home" "$work/ledger"
ln -s "$(realpath "$FAAS_WORKER")" "$work/bin/faas-worker"
unset FAAS_WORKER
cp scripts/check/ledger.sh "$work/handler"
chmod +x "$work/handler"
export PATH=$work/bin:$PATH PARALLEL_HOME=$work/home

fail() {
    printf 'check/parallel.sh: %s\n' "$1" >&2
    [ ! -s "$work/errors" ] || tail -n 20 "$work/errors" >&2
    exit 1
}

# The commands of the page, in its order.
# shellcheck disable=SC2016 # These are ends of lines.
mapfile -t commands < <(sed -n '/^## GNU parallel$/,/^## Slurm$/{/^```sh$/,/^```$/{/^```/!p}}' docs/batch.md)
[ "${#commands[@]}" -eq 3 ] || fail "docs/batch.md has ${#commands[@]} commands with parallel"
readonly stream=${commands[0]} file=${commands[1]} files=${commands[2]}
cd "$work"

# run COMMAND: with blocks that fit the small input; its status is that of parallel.
run() {
    timeout 60 bash -o pipefail -c "${1/--block 10M/--block 100k}" 2>errors
}

# expect STATUS COMMAND
expect() {
    local status=0
    run "$2" || status=$?
    [ "$status" -eq "$1" ] || fail "exit status $status and not $1: $2"
}

replies() {
    local failed='{"error":{"code":"handler_error","message":"a bad line","status":400,"executed":"yes"}}'
    awk -v failed="$failed" '{print /^bad/ ? failed : "{\"result\":\"" $0 "\"}"}' "$1"
}

same() {
    replies "$1" | cmp - "$2" || fail "$2 is not $1 line by line"
}

blocks() {
    grep -c '^map: ' errors || true
}

order_is_kept() {
    # The first block ends last. An empty line in the middle, and no line feed at the end.
    {
        printf 'slow\n'
        seq 50000
        printf '\n'
        seq 50001 99999
        printf 100000
    } >readings.txt
    gzip --stdout readings.txt >readings.gz
    expect 0 "$stream"
    same readings.txt stream.ndjson
    printf 'stream: %s lines in order, in %s blocks\n' "$(wc -l <stream.ndjson)" "$(blocks)"
    [ "$(blocks)" -ge 4 ] || fail 'these are too few blocks'
    expect 0 "$file"
    same readings.txt file.ndjson
    printf 'file: %s lines in order, in %s blocks\n' "$(wc -l <file.ndjson)" "$(blocks)"
    [ "$(blocks)" -ge 2 ] || fail 'these are too few blocks'
    # What -k is for.
    expect 0 "${stream/ -k / -j 4 }"
    cmp --silent stream.ndjson file.ndjson && fail 'without -k the slow block did not come late'
    cmp <(sort stream.ndjson) <(sort file.ndjson) || fail 'without -k there are other lines'
}

failures_are_counted() {
    # Each line is as long as a third of a block, so that the three bad ones stand in three blocks.
    local line
    for line in ok1 bad1 ok2 ok3 ok4 bad2 ok5 ok6 ok7 bad3 ok8; do
        printf '%s%033000d\n' "$line" 0
    done >readings.txt
    gzip --stdout readings.txt >readings.gz
    expect 3 "$stream"
    same readings.txt stream.ndjson
    expect 0 "${stream/map /map --exit-zero }"
    same readings.txt stream.ndjson
    printf 'three blocks with failed items: exit status 3, and 0 with --exit-zero\n'
}

has_lines() {
    [ "$(cat parts/*.ndjson 2>/dev/null | wc -l)" -ge "$1" ]
}

# below PID: all processes below it.
below() {
    local child
    for child in $(ps -o pid= --ppid "$1"); do
        below "$child"
        printf '%s\n' "$child"
    done
}

goes_on_after_a_kill() {
    local part killed end doubled
    for part in 1 2 3 4; do
        seq "${part}001" "${part}200" >"parts/$part.txt"
    done
    export LEDGER=$work/ledger DELAY=0.01
    timeout 60 bash -c "exec ${files/parallel/parallel -j 4}" 2>errors &
    killed=$!
    end=$((SECONDS + 20))
    until has_lines 150; do
        [ "$SECONDS" -lt "$end" ] || fail 'the files do not get on'
        sleep 0.05
    done
    # The jobs too, and not only what would tell them.
    mapfile -t processes < <(below "$killed")
    kill -KILL "$killed" "${processes[@]}" 2>/dev/null || true
    { wait "$killed" || true; } 2>errors
    has_lines 800 && fail 'the files had ended before they were killed'
    printf 'killed after %s of 800 lines' "$(cat parts/*.ndjson | wc -l)"
    expect 0 "$files"
    for part in 1 2 3 4; do
        same "parts/$part.txt" "parts/$part.ndjson"
    done
    sort "$LEDGER"/* | uniq >given
    sort parts/*.txt | cmp - given || fail 'a line was given to no handler'
    doubled=$(sort "$LEDGER"/* | uniq --repeated | wc -l)
    printf ', then ended: none lost or doubled, %s run twice\n' "$doubled"
    # In each of the four: the item in work, and one whose reply was not logged yet.
    [ "$doubled" -le 8 ] || fail 'these are more than were in hand'
}

order_is_kept
failures_are_counted
goes_on_after_a_kill
printf 'check/parallel.sh: all passed in %s s\n' "$SECONDS"
