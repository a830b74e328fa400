#!/bin/sh
# Decodes the readings of devices of type A, id,value,timestamp, without starting a program.
#
# The payload is never unescaped. The worker writes a comma as a comma, so the text can be split as
# it is; the device's id goes into the answer with the escapes that it came with; and in the two
# numbers an escape can only be white space around them.
#
# Numbers are read as Python's float() and int() read them: white space around them, underscores
# between digits, any number of digits. Not taken are infinity and NaN (JSON has neither), digits
# other than 0 to 9, and white space that is neither ASCII's nor a line's end.

# Bytes, not characters: the same in every shell, and [0-9] is ten digits in every language.
LC_ALL=C
export LC_ALL

# An unquoted $payload is split at commas, and a * in it stays a *.
IFS=,
set -f

# Sets text to $1 without the white space around it.
strip() {
    text=$1
    while :; do
        case $text in
            ' '*) text=${text#?} ;;
            '\t'* | '\n'* | '\f'* | '\r'*) text=${text#??} ;;
            '\u000b'* | '\u0085'* | '\u202'[89]*) text=${text#??????} ;;
            *' ') text=${text%?} ;;
            *'\t' | *'\n' | *'\f' | *'\r') text=${text%??} ;;
            *'\u000b' | *'\u0085' | *'\u202'[89]) text=${text%??????} ;;
            *) return ;;
        esac
    done
}

# Sets digits to $1 without leading zeros and underscores; fails if $1 is not a row of digits.
row_of_digits() {
    digits=$1
    case $digits in
        '' | *[!0-9_]* | _* | *_ | *__*) return 1 ;;
    esac
    while :; do
        case $digits in
            *_*) digits=${digits%%_*}${digits#*_} ;;
            0?*) digits=${digits#0} ;;
            *) return ;;
        esac
    done
}

# Sets sign and text to those of the number in $1.
split_sign() {
    strip "$1"
    sign=
    case $text in
        -*) sign=- text=${text#-} ;;
        +*) text=${text#+} ;;
    esac
}

# Sets number to the JSON of the integer in $1.
integer() {
    split_sign "$1"
    row_of_digits "$text" || return 1
    if [ "$digits" = 0 ]; then sign=; fi
    number=$sign$digits
}

# Sets number to the JSON of the float in $1: 42 is 42.0, .5 is 0.5.
float() {
    split_sign "$1"
    case $text in
        *[eE]*) exponent=${text#*[eE]} text=${text%%[eE]*} ;;
        *) exponent=0 ;;
    esac
    case $text in
        '' | .) return 1 ;;
        .*) whole=0 fraction=${text#.} ;;
        *.*) whole=${text%%.*} fraction=${text#*.} ;;
        *) whole=$text fraction= ;;
    esac
    row_of_digits "$whole" || return 1
    whole=$digits
    row_of_digits "${fraction:-0}" || return 1
    # Of a fraction the zeros in front count: the 1 keeps them.
    row_of_digits "1${fraction:-0}"
    number=$sign$whole.${digits#1}
    case $exponent in
        -*) sign=- exponent=${exponent#-} ;;
        *) exponent=${exponent#+} sign= ;;
    esac
    row_of_digits "$exponent" || return 1
    if [ "$digits" != 0 ]; then number=${number}e$sign$digits; fi
    # A float ends at 1.8e308. Numbers of so many digits are refused rather than computed.
    if [ "$sign" = - ]; then digits=0; fi
    [ ${#digits} -le 3 ] && [ $((${#whole} + digits)) -le 308 ]
}

# Sets result to the answer for the payload $1, JSON text without the quotes around it.
decode() {
    payload=$1
    case $payload in
        *,*,*)
            # Not ${1#*,}: shells take minutes for it where the first comma comes after 1 MiB.
            # shellcheck disable=SC2086
            set -- $payload
            device=$1
            if float "$2"; then
                metric=$number
                if integer "$3"; then
                    result="\"device_id\":\"$device\",\"metric_value\":$metric"
                    result="$result,\"timestamp\":$number,\"status\":\"decoded_successfully\""
                    return
                fi
            fi
            ;;
    esac
    result="\"error\":\"Invalid data format. Expected 'id,value,timestamp'.\""
    result="$result,\"original_data\":\"$payload\",\"status\":\"decoding_failed\""
}

# The promise that lets the worker write requests ahead of time: ids are repeated, the order is
# kept, and read takes no more than a line, printf writes it out before the next is read.
printf '%s\n' '{"ready":true,"concurrency":1}'

while IFS= read -r line; do
    id=${line#'{"id":'}
    payload=${line#*'"payload":"'}
    decode "${payload%'"}'}"
    printf '{"id":%s,"result":{"handler":"decoder_type_a",%s}}\n' "${id%%,*}" "$result"
done
