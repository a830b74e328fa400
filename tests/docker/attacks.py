"""Connections that cost a worker memory, for memory.py: a table, and the loop that keeps them.

Each attack is a number of connections, what each sends, and how it reads. A connection that the
worker closes is opened again, so that the attack goes on however the worker defends itself. Knows
nothing of the worker's process or its memory.
"""

import dataclasses
import select
import socket
import time

KIB, MIB = 1 << 10, 1 << 20
# Connections opened in one turn of the loop, of which there are fifty a second: at first, and in
# place of those that the worker has closed.
OPENED_A_TURN, OPENED_AGAIN_A_TURN = 60, 10
POST = b"POST / HTTP/1.1\r\nhost: localhost\r\n"
JSON = b"content-type: application/json\r\n"


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the attacks need to know of the worker's settings."""

    body: int
    reply: int


@dataclasses.dataclass(frozen=True)
class Attack:
    count: int
    data: bytes
    # all: takes what comes; none: nothing; drip: two KiB a second.
    reads: str = "none"
    # Bytes sent a second, after the first so many; 0 is as fast as they are taken.
    rate: int = 0


def post(body, kind=JSON, more=b""):
    return POST + kind + more + b"content-length: %d\r\n\r\n" % len(body) + body


def payload(text):
    return b'{"payload":"%s"}' % text


def repeated(start, unit, end, size):
    return start + unit * ((size - len(start) - len(end)) // len(unit)) + end


def table(settings):
    """All attacks, by name."""
    close = b"connection: close\r\n"
    text = b"content-type: text/plain\r\n"
    large = payload(b"a" * (settings.body - 100))
    wrong = repeated(b'{"payload":1,"x":"', b"a", b'"}', settings.body - 100)
    slow = payload(b"slow")
    chunked = POST + JSON + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"
    return {
        "unfinished heads of 63 KiB": Attack(2000, POST + b"x-a: " + b"a" * (63 * KIB)),
        "unfinished heads of 7 KiB": Attack(4000, POST + b"x-a: " + b"a" * (7 * KIB)),
        "idle connections": Attack(
            12000, b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", "all"),
        "unread replies": Attack(400, post(payload(b"big"))),
        "unread errors": Attack(200, post(payload(b"error"))),
        "dripping readers": Attack(200, post(payload(b"big")), "drip"),
        "control characters": Attack(18, post(b"\x01" * MIB, text)),
        "[1,1,...]": Attack(18, post(repeated(b"[", b"1,", b"1]", MIB))),
        '{"a":1,...}': Attack(18, post(repeated(b"{", b'"a":1,', b'"b":1}', MIB))),
        "many hostile bodies, read": Attack(
            60, post(repeated(b"[", b"1,", b"1]", settings.body), more=close), "all"),
        "largest bodies": Attack(40, post(large, more=close), "all"),
        "largest bodies, unread": Attack(40, post(large)),
        "queued, traceparent of 63 KiB": Attack(
            1000, post(slow, more=b"traceparent: " + b"\xff" * (63 * KIB) + b"\r\n")),
        "queued, headers of 7 KiB": Attack(
            1000, post(slow, more=b"x-key: " + b"\xff" * (7 * KIB) + b"\r\n")),
        "pipelined 422s": Attack(500, post(b"\x01" * 2600, text) * 200),
        "pipelined documents": Attack(
            500, b"GET /openapi.json HTTP/1.1\r\nhost: localhost\r\n\r\n" * 400),
        "pipelined requests": Attack(300, post(payload(b"x" * 100)) * 300),
        "announced bodies": Attack(
            300, POST + JSON + b"content-length: %d\r\n\r\n{" % settings.body),
        "bodies half sent": Attack(100, post(large)[: settings.body // 2]),
        "trickling bodies": Attack(300, post(payload(b"a" * 256 * KIB)), "all", 2 * KIB),
        "kept after large bodies": Attack(300, post(wrong), "all"),
        "one-byte chunks": Attack(500, chunked + b"1\r\na\r\n" * 4000),
        "one-byte chunks, trickling": Attack(500, chunked + b"1\r\na\r\n" * 4000, "all", 600),
        "large stray lines": Attack(8, post(payload(b"stray"), more=close), "all"),
        "floods on stderr": Attack(8, post(payload(b"flood"), more=close), "all"),
    }


class Connection:
    """One connection of an attack, until the worker closes it."""

    def __init__(self, address, attack):
        self.attack = attack
        self.left = memoryview(attack.data)
        self.next_send = self.next_read = 0.0
        self.socket = socket.socket()
        if attack.reads != "all":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        try:
            self.socket.connect(address)
        except BlockingIOError:
            pass

    def wanted(self, now):
        events = select.POLLRDHUP
        if self.left and now >= self.next_send:
            events |= select.POLLOUT
        reads = self.attack.reads
        if reads == "all" or (reads == "drip" and now >= self.next_read):
            events |= select.POLLIN
        return events

    def act(self, events, now):
        """Sends and reads; gives whether the connection is still there."""
        try:
            if events & (select.POLLERR | select.POLLHUP):
                return False
            if events & select.POLLIN:
                self.next_read = now + 1
                if not self.socket.recv(2 * KIB if self.attack.reads == "drip" else MIB):
                    return False
            elif events & select.POLLRDHUP:
                return False
            if events & select.POLLOUT:
                rate = self.attack.rate
                part = self.left[:rate] if rate else self.left
                self.left = self.left[self.socket.send(part):]
                self.next_send = now + 1 if rate else 0.0
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


def keep_up(address, attack, seconds):
    """Keeps all connections of an attack for some seconds; gives how often one was opened."""
    poll, connections, opened = select.poll(), {}, 0
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        most = OPENED_A_TURN if opened < attack.count else OPENED_AGAIN_A_TURN
        for _ in range(min(most, attack.count - len(connections))):
            try:
                connection = Connection(address, attack)
            except OSError:
                break
            opened += 1
            connections[connection.socket.fileno()] = connection
            poll.register(connection.socket, connection.wanted(now))
        turn_ends = now + 0.02
        for descriptor, events in poll.poll(20):
            connection = connections[descriptor]
            if connection.act(events, now):
                wanted = connection.wanted(now)
                poll.modify(descriptor, wanted)
                continue
            poll.unregister(descriptor)
            connection.socket.close()
            del connections[descriptor]
        if attack.rate or attack.reads == "drip":
            for descriptor, connection in connections.items():
                poll.modify(descriptor, connection.wanted(now))
        time.sleep(max(0.0, turn_ends - time.monotonic()))
    for connection in connections.values():
        connection.socket.close()
    return opened
