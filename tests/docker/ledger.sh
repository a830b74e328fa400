#!/bin/sh
# Answers a payload with itself after 20 ms, and first writes into a ledger that it was given it.
while IFS= read -r line; do
    payload=${line#*'"payload":"'}
    payload=${payload%'"}'}
    echo "$payload" >>/ledger/$$
    sleep 0.02
    printf '{"result":"%s"}\n' "$payload"
done
