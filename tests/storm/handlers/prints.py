"""Works on 16 requests at once, in threads, and prints each payload to stdout itself."""

import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

lock = threading.Lock()


def write(text):
    with lock:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def work(line):
    request = json.loads(line)
    write("working on " + request["payload"])
    time.sleep(0.002)
    result = request if request["payload"].startswith("request") else request["payload"]
    write(json.dumps({"id": request["id"], "result": result}))


write('{"ready":true,"concurrency":16}')
with ThreadPoolExecutor(16) as pool:
    for line in sys.stdin:
        pool.submit(work, line)
