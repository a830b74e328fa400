#!/usr/bin/env python3
"""A handler on asyncio: decodes the reading of a device, "dev-1,42.5,1678886400".

    faas-worker --handler 'python3 reading_async.py'

Each process works on many requests at once, for functions that wait for other systems.
"""

import asyncio
import json
import re
import sys
import traceback

CONCURRENCY = 64
# Three times the default of --max-body, which is the most that a line has, and more.
LONGEST_LINE_BYTES = 32 * 1024 * 1024

# Numbers as JSON writes them, of up to 15 digits: no double loses one of these.
READING = re.compile(
    r"([^,]+),(-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?),(0|[1-9][0-9]{0,14})"
)


class Refused(Exception):
    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


async def handle(payload):
    """The function: returns a value for json.dumps, or raises."""
    reading = READING.fullmatch(payload)
    if not reading:
        raise Refused(422, "expected device,value,timestamp")
    device, value, timestamp = reading.groups()
    return {"device": device, "value": float(value), "timestamp": int(timestamp)}


# ---- The loop, which needs no change -------------------------------------------------------------


def write(replies, message):
    replies.write(json.dumps(message, allow_nan=False).encode() + b"\n")
    replies.flush()


async def answer(replies, id, payload):
    try:
        write(replies, {"id": id, "result": await handle(payload)})
        return
    except Refused as refused:
        error = {"message": str(refused), "status": refused.status}
    except Exception as cause:
        traceback.print_exc()
        error = {"message": str(cause), "status": 500}
    write(replies, {"id": id, "error": error})


async def main():
    requests = asyncio.StreamReader(limit=LONGEST_LINE_BYTES)
    protocol = asyncio.StreamReaderProtocol(requests)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    # Bytes: UTF-8 under every locale. Output of the function goes to the log.
    replies, sys.stdout = sys.stdout.buffer, sys.stderr
    write(replies, {"ready": True, "concurrency": CONCURRENCY})
    # Kept here: a task that nothing refers to may be collected before its end.
    tasks = set()
    while line := await requests.readline():
        task = asyncio.create_task(answer(replies, **json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


asyncio.run(main())
