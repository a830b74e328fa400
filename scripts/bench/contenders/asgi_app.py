"""The least that uvicorn can be asked for: ASGI, no framework, the function in-process."""

import json
import os
import sys

sys.path.insert(0, os.environ["BENCH_FUNCTIONS"])
import handler


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    payload = json.loads(body)["payload"]
    answer = json.dumps({"result": handler.decode_type_a(payload)}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
