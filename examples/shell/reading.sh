#!/bin/sh
# A handler in sh: decodes the reading of a device, "dev-1,42.5,1678886400".
#
#   faas-worker --handler 'sh reading.sh'
#
# sh has no JSON. The payload stays JSON text, as it stands between the quotes of the request line:
# a comma is a comma there, but a quote is \" and a line's end is \n. Text that is copied into the
# answer needs no care; a function that looks at other characters must know their escapes.

# An unquoted $payload is split at commas, and a * in it stays a *.
IFS=,
set -f

# The function: sets result to JSON and returns 0, or sets message and status and returns 1.
handle() {
    payload=$1
    # Not ${payload#*,}: shells take minutes for it where the first comma comes after 1 MiB.
    # shellcheck disable=SC2086
    set -- $payload
    message='expected device,value,timestamp' status=422
    [ -n "$1" ] && [ "$1,$2,$3" = "$payload" ] && is_number "$2" && is_whole "$3" || return 1
    result="{\"device\":\"$1\",\"value\":$2,\"timestamp\":$3}"
}

# Whether $1 is a number as JSON writes it, without an exponent.
is_number() {
    whole=${1%%.*}
    is_whole "${whole#-}" || return 1
    case $1 in
        *.) return 1 ;;
        # A fraction may begin with zeros: the 1 before it lets them pass.
        *.*) is_whole "1${1#*.}" 16 ;;
    esac
}

# Whether $1 is a whole number as JSON writes it, of at most $2 digits (15).
is_whole() {
    case $1 in
        '' | *[!0-9]* | 0?*) return 1 ;;
    esac
    [ ${#1} -le "${2:-15}" ]
}

# ---- The loop, which needs no change ---------------------------------------------------------------

# Bytes, not characters: the same in every shell and under every locale.
LC_ALL=C
export LC_ALL

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
