#!/usr/bin/env python3
"""A handler in Python: decodes the reading of a device, "dev-1,42.5,1678886400".

    faas-worker --handler 'python3 reading.py'

The loop is plain. serve.py has a longer one, for functions that are left as they are.
"""

import json
import re
import sys
import traceback

# Numbers as JSON writes them, of up to 15 digits: no double loses one of these.
READING = re.compile(
    r"([^,]+),(-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?),(0|[1-9][0-9]{0,14})"
)


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def handle(payload):
    """The function: returns a value for json.dumps, or raises."""
    reading = READING.fullmatch(payload)
    if not reading:
        raise Refused(422, "expected device,value,timestamp")
    device, value, timestamp = reading.groups()
    return {"device": device, "value": float(value), "timestamp": int(timestamp)}


# ---- The loop, which needs no change -------------------------------------------------------------


def answer(id, payload):
    try:
        return json.dumps({"id": id, "result": handle(payload)}, allow_nan=False)
    except Refused as refused:
        error = {"message": str(refused), "status": refused.status}
    except Exception as cause:
        traceback.print_exc()
        error = {"message": str(cause), "status": 500}
    return json.dumps({"id": id, "error": error})


def main():
    # Bytes: UTF-8 under every locale. Output of the function goes to the log.
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    # Ids are repeated, and each reply is flushed before the next request is read: the worker may
    # write requests ahead of time.
    replies.write(b'{"ready":true,"concurrency":1}\n')
    replies.flush()
    for line in requests:
        reply = answer(**json.loads(line))
        replies.write(reply.encode() + b"\n")
        replies.flush()


main()
