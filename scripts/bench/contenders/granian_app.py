"""The least that granian can be asked for: its own interface, no framework, the function in-process."""

import json
import os
import sys

sys.path.insert(0, os.environ["BENCH_FUNCTIONS"])
import handler

HEADERS = [("content-type", "application/json")]


async def app(scope, protocol):
    payload = json.loads(await protocol())["payload"]
    answer = json.dumps({"result": handler.decode_type_a(payload)})
    protocol.response_str(200, HEADERS, answer)
