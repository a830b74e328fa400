#!/usr/bin/env python3
"""A steady load on one address while other things happen, with an account of each request.

    load.py ADDRESS [--rate N] [--requests N] [--allow PHASE=N]... [--refused PHASE=N]...
        PHASE=COMMAND...

Requests start at a fixed rate, whatever the answers do: half of them on kept connections, half on a
connection of their own. None is sent again, so each loss is counted. A phase lasts as long as its
command, run by bash, and --requests at least are sent in all phases together. Prints a line a phase;
exits with 1 if a command failed, or if more requests failed in a phase than --allow says (none), but
for those that were not connected, of which there may be as many as --refused says (none).
Each handler must answer a payload with itself.
"""

import argparse
import asyncio
import collections
import contextlib
import os
import sys
import time

# For one request; more than a worker's queue and handler take together.
PATIENCE = 20
LAST_ANSWERS = 25
NOT_CONNECTED = "not connected"


class Lost(Exception):
    """A request without the right answer; the text is the kind of loss."""


class Failed(Exception):
    """A command of a phase that did not succeed."""


class Connection:
    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.uses = 0

    @classmethod
    async def open(cls, host, port):
        try:
            return cls(*await asyncio.open_connection(host, port))
        except OSError as error:
            raise Lost(f"{NOT_CONNECTED}: {os.strerror(error.errno or 0)}") from None

    def close(self):
        self.writer.close()

    def is_stale(self):
        """Whether the other end has closed it, as the end of the stream is read in the background."""
        return self.reader.at_eof() or self.writer.is_closing()

    async def ask(self, payload, keep):
        """Sends one request and reads its answer: whether the connection may be used again."""
        used = "a reused" if self.uses else "a new"
        self.uses += 1
        body = b'{"payload":"%s"}' % payload
        self.writer.write(
            b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: %s\r\n\r\n%s"
            % (len(body), b"keep-alive" if keep else b"close", body)
        )
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, headers = parse(head)
            answer = await self.reader.readexactly(int(headers.get(b"content-length", b"0")))
        except (OSError, asyncio.IncompleteReadError) as error:
            begun = bool(getattr(error, "partial", b""))
            where = "in the midst of an answer" if begun else "before an answer"
            raise Lost(f"{used} connection ended {where}") from None
        if status != 200:
            code = headers.get(b"x-faas-error", b"no code").decode()
            raise Lost(f"status {status}, {code}")
        if answer != b'{"result":"%s"}' % payload:
            raise Lost(f"another's answer: {answer[:80]!r}")
        return headers.get(b"connection", b"").lower() != b"close"


def parse(head):
    first, *lines = head[:-4].split(b"\r\n")
    headers = dict(line.split(b":", 1) for line in lines)
    return int(first.split(b" ")[1]), {
        name.strip().lower(): value.strip() for name, value in headers.items()
    }


class Phase:
    def __init__(self, name):
        self.name = name
        self.began = time.monotonic()
        self.seconds = 0
        self.sent = {True: 0, False: 0}
        self.lost = {True: collections.Counter(), False: collections.Counter()}
        self.times = []

    def failed(self):
        return sum(sum(counter.values()) for counter in self.lost.values())

    def refused(self):
        kinds = (kind for counter in self.lost.values() for kind in counter.elements())
        return sum(kind.startswith(NOT_CONNECTED) for kind in kinds)

    def line(self):
        times = sorted(self.times) or [0]
        middle, late = (1000 * times[int(part * (len(times) - 1))] for part in (0.5, 0.99))
        kinds = []
        for keep, way in ((True, "kept"), (False, "fresh")):
            for kind, count in self.lost[keep].items():
                kinds.append(f"{count} x {way}: {kind}")
        kept, fresh = (
            f"{sum(self.lost[keep].values())} of {self.sent[keep]:>6}" for keep in (True, False)
        )
        return (
            f"{self.name:<24} {self.seconds:>6.1f} s  kept {kept:>12}  fresh {fresh:>12}"
            f"  p50 {middle:>6.1f} ms  p99 {late:>7.1f} ms  most {1000 * times[-1]:>7.1f} ms"
            f"  {'; '.join(kinds)}".rstrip()
        )


class Load:
    """Sends to one address at a rate, on behalf of the phase that is under way."""

    def __init__(self, address, rate):
        self.host, port = address.rsplit(":", 1)
        self.port = int(port)
        self.rate = rate
        self.idle = []
        self.number = 0
        self.phase = None
        self.under_way = set()
        self.failure = None

    async def one(self, number, keep, phase):
        phase.sent[keep] += 1
        began = time.monotonic()
        connection = None
        try:
            async with asyncio.timeout(PATIENCE):
                while keep and self.idle and connection is None:
                    connection = self.idle.pop()
                    if connection.is_stale():
                        connection.close()
                        connection = None
                if connection is None:
                    connection = await Connection.open(self.host, self.port)
                if await connection.ask(b"p-%d" % number, keep) and keep:
                    self.idle.append(connection)
                    connection = None
        except Lost as loss:
            phase.lost[keep][str(loss)] += 1
        except TimeoutError:
            phase.lost[keep][f"no answer in {PATIENCE} s"] += 1
        else:
            phase.times.append(time.monotonic() - began)
        finally:
            if connection is not None:
                connection.close()

    async def send(self):
        """Starts requests for ever; a late turn starts all that are due."""
        began = time.monotonic()
        first = self.number
        while True:
            due = first + int((time.monotonic() - began) * self.rate)
            while self.number < due:
                self.number += 1
                task = asyncio.create_task(self.one(self.number, self.number % 2 == 0, self.phase))
                self.under_way.add(task)
                task.add_done_callback(self.under_way.discard)
            await asyncio.sleep(1 / self.rate)

    async def run(self, phases, requests):
        """Runs coroutine functions by name, one phase each; then sends what is missing of requests."""
        done = []
        sender = None
        try:
            for name, act in [*phases.items(), ("afterwards", None)]:
                if act is None and self.number >= requests:
                    break
                self.phase = Phase(name)
                done.append(self.phase)
                sender = sender or asyncio.create_task(self.send())
                if act is None:
                    while self.number < requests:
                        await asyncio.sleep(0.05)
                else:
                    await act()
                self.phase.seconds = time.monotonic() - self.phase.began
        except Failed as failure:
            self.failure = str(failure)
        finally:
            if sender:
                sender.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await sender
            if self.under_way:
                await asyncio.wait(self.under_way, timeout=LAST_ANSWERS)
            for connection in self.idle:
                connection.close()
        return done


def report(phases, allowed=None, refused=None):
    """Prints a line a phase and one for all; whether no phase lost more than it may."""
    for phase in phases:
        print(phase.line(), flush=True)
    sent = sum(sum(phase.sent.values()) for phase in phases)
    failed = sum(phase.failed() for phase in phases)
    print(f"{failed} of {sent} requests failed", flush=True)
    may_fail, may_be_refused = allowed or {}, refused or {}
    return all(
        phase.failed() - phase.refused() <= may_fail.get(phase.name, 0)
        and phase.refused() <= may_be_refused.get(phase.name, 0)
        for phase in phases
    )


def shell(command):
    async def act():
        process = await asyncio.create_subprocess_exec(
            "bash", "-euo", "pipefail", "-c", command, stdin=asyncio.subprocess.DEVNULL
        )
        if await process.wait() != 0:
            raise Failed(f"load.py: status {process.returncode}: {command}")

    return act


def counts(words):
    return {name: int(count) for name, count in (word.split("=", 1) for word in words)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--requests", type=int, default=0)
    parser.add_argument("--allow", action="append", default=[], metavar="PHASE=N")
    parser.add_argument("--refused", action="append", default=[], metavar="PHASE=N")
    parser.add_argument("phases", nargs="+", metavar="PHASE=COMMAND")
    options = parser.parse_args()
    allowed, refused = counts(options.allow), counts(options.refused)
    phases = dict(word.split("=", 1) for word in options.phases)
    phases = {name: shell(command) for name, command in phases.items()}
    load = Load(options.address, options.rate)
    is_right = report(asyncio.run(load.run(phases, options.requests)), allowed, refused)
    if load.failure:
        sys.exit(load.failure)
    if not is_right:
        sys.exit(1)


if __name__ == "__main__":
    main()
