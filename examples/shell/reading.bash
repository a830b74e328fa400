#!/bin/bash
# A handler in bash: decodes the reading of a device, "dev-1,42.5,1678886400".
#
#   faas-worker --handler 'bash reading.bash'
#
# bash has no JSON. The payload stays JSON text, as it stands between the quotes of the request line:
# a comma is a comma there, but a quote is \" and a line's end is \n. Text that is copied into the
# answer needs no care; a function that looks at other characters must know their escapes.

# Numbers as JSON writes them, of up to 15 digits: no double loses one of these.
TIMESTAMP='^(0|[1-9][0-9]{0,14})$'
VALUE='^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?$'

# The function: sets result to JSON and returns 0, or sets message and status and returns 1.
handle() {
    # An unquoted $1 is split at IFS. Not ${1#*,}: bash takes minutes for it where the first comma comes
    # after 1 MiB.
    local IFS=, fields
    # shellcheck disable=SC2206
    fields=($1)
    local device=${fields[0]} value=${fields[1]} timestamp=${fields[2]}
    message='expected device,value,timestamp' status=422
    [[ -n $device && $value =~ $VALUE && $timestamp =~ $TIMESTAMP ]] || return 1
    [[ $1 == "$device,$value,$timestamp" ]] || return 1
    result="{\"device\":\"$device\",\"value\":$value,\"timestamp\":$timestamp}"
}

# ---- The loop, which needs no change ---------------------------------------------------------------

# Bytes, not characters: faster, and the same under every locale.
LC_ALL=C
# A * in a payload is not replaced by the names of files.
set -f

# Ids are repeated, and each reply is written before the next request is read: the worker may write
# requests ahead of time.
printf '{"ready":true,"concurrency":1}\n'

# The worker promises the order and the spacing of {"id":7,"payload":"..."}. Debug with echo ... >&2.
while IFS= read -r line; do
    id=${line#'{"id":'} id=${id%%,*}
    payload=${line#*'"payload":"'} payload=${payload%'"}'}
    if handle "$payload"; then
        printf '{"id":%s,"result":%s}\n' "$id" "$result"
    else
        printf '{"id":%s,"error":{"message":"%s","status":%s}}\n' "$id" "$message" "$status"
    fi
done
