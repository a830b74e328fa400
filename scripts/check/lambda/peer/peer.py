"""The function that AWS's clients serve in scripts/check/lambda.sh: a payload is a command, or echoed."""

import os
import time

if os.environ.get("LAMBDA_PEER_FAILS"):
    raise RuntimeError("the module fails at import")


def handle(event, _context):
    payload = event.get("payload", "")
    command, _, argument = payload.partition(" ")
    if command == "error":
        raise ValueError(argument)
    if command == "sleep":
        time.sleep(int(argument) / 1000)
    if command == "big":
        return "x" * int(argument)
    return payload
