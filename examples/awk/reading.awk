#!/usr/bin/gawk -f
# A handler in awk: decodes the reading of a device, "dev-1,42.5,1678886400".
#
#   faas-worker --handler 'gawk -f reading.awk'
#
# For gawk: mawk waits for a block of input without `-W interactive`, and older ones take {0,14} for text.
#
# awk has no JSON. The payload stays JSON text, as it stands between the quotes of the request line:
# a comma is a comma there, but a quote is \" and a line's end is \n. Text that is copied into the
# answer needs no care; a function that looks at other characters must know their escapes.

# The function: returns JSON, or "" after setting message and status to an error.
function handle(payload,    fields) {
    if (split(payload, fields, ",") != 3 || fields[1] == "" ||
        fields[2] !~ /^-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?$/ ||
        fields[3] !~ /^(0|[1-9][0-9]{0,14})$/) {
        message = "expected device,value,timestamp"
        status = 422
        return ""
    }
    return "{\"device\":\"" fields[1] "\",\"value\":" fields[2] ",\"timestamp\":" fields[3] "}"
}

# ---- The loop, which needs no change ----------------------------------------------------------------

# print reaches the worker as a log line between the replies; print ... > "/dev/stderr" is better.
function write(line) {
    print line
    fflush()
}

# Ids are repeated, and each reply is flushed before the next request is read: the worker may write
# requests ahead of time.
BEGIN { write("{\"ready\":true,\"concurrency\":1}") }

# The worker promises the order and the spacing of {"id":7,"payload":"..."}.
{
    match($0, /^\{"id":[0-9]+/)
    id = substr($0, 7, RLENGTH - 6)
    begin = RLENGTH + length(",\"payload\":\"") + 1
    result = handle(substr($0, begin, length($0) - begin - 1))
    if (result != "")
        write("{\"id\":" id ",\"result\":" result "}")
    else
        write("{\"id\":" id ",\"error\":{\"message\":\"" message "\",\"status\":" status "}}")
}
