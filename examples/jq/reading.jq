#!/usr/bin/jq -ncf --unbuffered
# A handler in jq: decodes the reading of a device, "dev-1,42.5,1678886400".
#
#   faas-worker --handler 'jq --unbuffered -ncf reading.jq'

# Numbers as JSON writes them, of up to 15 digits: no double loses one of these.
def is_value: test("^-?(0|[1-9][0-9]{0,14})(\\.[0-9]{1,15})?\\z");
def is_timestamp: test("^(0|[1-9][0-9]{0,14})\\z");

# The function: makes a result of the payload, or an error of a text, or of a message and a status.
def handle:
    split(",")
    | if length == 3 and .[0] != "" and (.[1] | is_value) and (.[2] | is_timestamp)
      then {device: .[0], value: .[1] | tonumber, timestamp: .[2] | tonumber}
      else error({message: "expected device,value,timestamp", status: 422})
      end;

# ---- The loop, which needs no change --------------------------------------------------------------

# Ids are repeated, and each reply is flushed before the next request is read (--unbuffered): the
# worker may write requests ahead of time. A line that fails without `try` has no reply.
{ready: true, concurrency: 1},
(inputs | {id} + (try {result: .payload | handle} catch {error: .}))
