#!/bin/sh
# A handler for checks: answers a payload with itself after DELAY seconds, and first writes into the
# folder LEDGER that it was given it. A payload that starts with `bad` is answered with an error, one that
# starts with `slow` after a second.
while IFS= read -r line; do
    payload=${line#*'"payload":"'}
    payload=${payload%'"}'}
    [ -z "${LEDGER:-}" ] || printf '%s\n' "$payload" >>"$LEDGER/$$"
    case $payload in
        slow*) sleep 1 ;;
        *) [ -z "${DELAY:-}" ] || sleep "$DELAY" ;;
    esac
    case $payload in
        bad*) printf '{"error":"a bad line"}\n' ;;
        *) printf '{"result":"%s"}\n' "$payload" ;;
    esac
done
