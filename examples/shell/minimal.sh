#!/bin/sh
# The smallest correct handler: answers every payload with itself.
#
# A request is one line, {"id":7,"payload":"..."}; what is left of it here is the payload as JSON
# text, quotes and escapes included, which is just what an answer needs. A handler that works on
# one request at a time, as this loop does, need not repeat the id.

while IFS= read -r line; do
    payload=${line#*'"payload":'}
    printf '{"result":%s}\n' "${payload%\}}"
done
