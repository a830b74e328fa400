"""The least that uWSGI can be asked for: WSGI, no framework, the function in-process."""

import json
import os
import sys

sys.path.insert(0, os.environ["BENCH_FUNCTIONS"])
import handler


def application(environment, start_response):
    payload = json.load(environment["wsgi.input"])["payload"]
    answer = json.dumps({"result": handler.decode_type_a(payload)}).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(answer)))]
    start_response("200 OK", headers)
    return [answer]
