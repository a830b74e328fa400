#!/usr/bin/env python3
"""Asks workers in containers, for scripts/check/docker.sh; exits 1 with the reason on stderr.

    client.py cases ADDRESS HANDLER           the recorded cases of a handler hold
    client.py post ADDRESS PAYLOAD [HOST]     status, error code and body of one answer
    client.py get ADDRESS PATH                the body of a page
    client.py until ADDRESS PAYLOAD TEXT [COMMAND...]
                                              runs the command, waits until the answer has the text
    client.py load ADDRESS LEDGER COMMAND...  runs the command under load, accounts for all

ADDRESS is HOST:PORT. Owns what a client sees; never starts or stops a container itself, but by
the command that it is given.
"""

import base64
import http.client
import json
import pathlib
import subprocess
import sys
import threading
import time

CASES = pathlib.Path(__file__).parents[1] / "http-cases.json"
WAIT_SECONDS = 20
CLIENTS = 16
# Answers before the command runs, so that it runs in the midst of load.
WARM_UP_ANSWERS = 200


class Wrong(Exception):
    """What does not hold."""


def connect(address):
    host, port = address.rsplit(":", 1)
    return http.client.HTTPConnection(host, int(port), timeout=30)


def ask(connection, payload, host=None):
    headers = {"content-type": "application/json"}
    if host:
        headers["host"] = host
    connection.request("POST", "/", json.dumps({"payload": payload}), headers)
    response = connection.getresponse()
    return response, response.read().decode()


def check_cases(address, handler):
    count = 0
    for case in json.loads(CASES.read_text(encoding="utf-8")):
        if case["handler"] != handler:
            continue
        body = case.get("body")
        body = body.encode() if body else base64.b64decode(case.get("body_base64", ""))
        connection = connect(address)
        connection.request(case["method"], case["path"], body or None, case["headers"])
        response = connection.getresponse()
        text = response.read().decode()
        seen = (response.status, json.loads(text or "null"))
        wanted = (case["expect"]["status"], case["expect"]["body"])
        connection.close()
        if seen != wanted:
            raise Wrong(f"{case['name']}: {seen} instead of {wanted}")
        count += 1
    if count == 0:
        raise Wrong(f"there are no cases for {handler!r}")
    print(f"{count} recorded cases")


def post(address, payload, host=None):
    response, body = ask(connect(address), payload, host)
    print(response.status, response.getheader("x-faas-error", "-"), body)


def get(address, path):
    connection = connect(address)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read().decode()
    if response.status != 200:
        raise Wrong(f"{path}: {response.status} {body}")
    print(body, end="")


def until(address, payload, text, *command):
    if command:
        subprocess.run(command, check=True, timeout=WAIT_SECONDS)
    begin = time.monotonic()
    seen = "nothing"
    while time.monotonic() - begin < WAIT_SECONDS:
        try:
            _, seen = ask(connect(address), payload)
        except (OSError, http.client.HTTPException) as error:
            seen = repr(error)
        if text in seen:
            print(f"{time.monotonic() - begin:.2f} s")
            return
        time.sleep(0.02)
    raise Wrong(f"after {WAIT_SECONDS} s: {seen}")


class Client(threading.Thread):
    """Sends until nobody listens any more. Half of the clients keep their connection."""

    def __init__(self, address, number, answers):
        super().__init__(daemon=True)
        self.address = address
        self.number = number
        self.answers = answers

    def run(self):
        connection = None
        for round_number in range(1_000_000):
            if connection is None:
                connection = connect(self.address)
                try:
                    connection.connect()
                except OSError:
                    return
            payload = f"{self.number}-{round_number}"
            try:
                response, body = ask(connection, payload)
                self.answers[payload] = (response.status, body)
                keeps = self.number % 2 == 0 and not response.will_close
            except (OSError, http.client.HTTPException) as error:
                self.answers[payload] = (0, repr(error))
                keeps = False
            if not keeps:
                connection.close()
                connection = None


def load(address, ledger, *command):
    answers = {}
    clients = [Client(address, number, answers) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    deadline = time.monotonic() + WAIT_SECONDS
    while len(answers) < WARM_UP_ANSWERS:
        if time.monotonic() > deadline:
            raise Wrong(f"only {len(answers)} answers in {WAIT_SECONDS} s")
        time.sleep(0.01)
    begin = time.monotonic()
    before = len(answers)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)
    took = time.monotonic() - begin
    for client in clients:
        client.join(WAIT_SECONDS)
        if client.is_alive():
            raise Wrong("a client still waits for an answer")
    account(answers, ledger)
    count = {status: 0 for status in (200, 503, 0)}
    for status, _ in answers.values():
        count[status] += 1
    print(
        f"{count[200]} answered, {count[503]} refused, {count[0]} never accepted; "
        f"{len(answers) - before} of them after the signal; ended in {took:.2f} s"
    )


def account(answers, ledger):
    """Holds the answers against the ledger, where the handler writes what it is given."""
    runs = {}
    for path in pathlib.Path(ledger).iterdir():
        for payload in path.read_text(encoding="utf-8").split():
            runs[payload] = runs.get(payload, 0) + 1
    for payload, (status, body) in answers.items():
        ran = runs.pop(payload, 0)
        if status == 200 and ran == 1 and json.loads(body) == {"result": payload}:
            continue
        # Refused as the drain began, or the connection never reached the worker.
        if status in (503, 0) and ran == 0:
            continue
        raise Wrong(f"{payload!r} ran {ran} times, and was answered {status} {body}")
    if runs:
        raise Wrong(f"ran, but nobody asked: {runs}")


def main():
    commands = {"cases": check_cases, "post": post, "get": get, "until": until, "load": load}
    try:
        commands[sys.argv[1]](*sys.argv[2:])
    except (Wrong, OSError, http.client.HTTPException, subprocess.SubprocessError) as error:
        sys.exit(f"{sys.argv[1]}: {error}")


if __name__ == "__main__":
    main()
