"""Traces of a worker, as a receiver gets them: see otlp.sh."""

import contextlib
import http.client
import http.server
import json
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

WORKER = sys.argv[1]
PATIENCE = 30
CALLER = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")

# Answers with the context that it was given.
HANDLER = """
import json, os, sys, time
print('{"ready":true,"context":["traceparent","tracestate"]}', flush=True)
for line in sys.stdin:
    request = json.loads(line)
    answer = {"id": request["id"]}
    match request["payload"].split():
        case ["error"]:
            answer["error"] = {"message": "no such device", "status": 404}
        case ["exit"]:
            os._exit(3)
        case ["sleep", seconds]:
            time.sleep(float(seconds))
            answer["result"] = 1
        case _:
            answer["result"] = [request.get("traceparent"), request.get("tracestate")]
    print(json.dumps(answer), flush=True)
"""


class Receiver:
    """Takes spans over HTTP; refuses with the statuses in `refusals` first."""

    def __init__(self):
        self.spans = queue.Queue()
        self.resources = []
        self.bodies = []
        self.refusals = []
        self.taken = 0
        self.is_open = threading.Event()
        self.is_open.set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces", self.path
                assert self.headers["content-type"] == "application/x-protobuf"
                receiver.is_open.wait()
                receiver.bodies.append((self.headers, body))
                status = receiver.refusals.pop(0) if receiver.refusals else 200
                if status == 200:
                    receiver.take(body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, body):
        for part in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(attributes(part.resource))
            for scope_spans in part.scope_spans:
                assert scope_spans.scope.name == "faas-worker", scope_spans.scope
                for span in scope_spans.spans:
                    self.taken += 1
                    self.spans.put(span)

    def next(self, count):
        """The next spans, by name."""
        end = time.monotonic() + PATIENCE
        return [self.spans.get(timeout=end - time.monotonic()) for _ in range(count)]

    def close(self):
        self.is_open.set()
        self.server.shutdown()
        self.server.server_close()


def attributes(owner):
    found = {}
    for pair in owner.attributes:
        kind = pair.value.WhichOneof("value")
        assert pair.key not in found, pair.key
        found[pair.key] = getattr(pair.value, kind)
    return found


class Running:
    """A worker whose log and last words can be read."""

    def __init__(self, port, *options, **variables):
        self.log = tempfile.TemporaryFile()
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "FAAS_"))
        }
        environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"
        environment["OTEL_BSP_SCHEDULE_DELAY"] = "100"
        environment |= variables
        command = [WORKER, "--port", "0", "--log-format", "json", "--processes", "1", *options]
        command += ["--", sys.executable, "-c", HANDLER]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        self.port = int(self.until(r'"listening","address":"127.0.0.1:(\d+)"')[1])
        self.until("ready: the first process is up")

    def text(self):
        # pread: the worker writes at the place where this descriptor would read.
        return os.pread(self.log.fileno(), 1 << 24, 0).decode()

    def until(self, pattern):
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.text())):
            assert time.monotonic() < end, f"in vain: {pattern}\n{self.text()}"
            assert self.process.poll() is None, self.text()
            time.sleep(0.01)
        return found

    def events(self, words):
        lines = map(json.loads, self.text().splitlines())
        return [event for event in lines if words in event["message"]]

    def post(self, payload, headers=None, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        body = json.dumps({"payload": payload}) if body is None else body
        connection.request("POST", "/", body, {"x-request-id": payload.replace(" ", "-"), **(headers or {})})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def stop(self):
        """Stops it; returns how long that took."""
        begun = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0, self.text()
        return time.monotonic() - begun

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(self.text(), file=sys.stderr)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def receiving():
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()


def by_name(spans):
    found = {span.name: span for span in spans}
    assert len(found) == len(spans), spans
    return found


def check_pair(spans, request_id, status, error=None, is_first=False):
    """Asserts all of a request's spans that does not depend on the caller."""
    found = by_name(spans)
    assert set(found) == {"POST /", "invoke"}, found
    request, invoke = found["POST /"], found["invoke"]
    assert request.kind == Span.SPAN_KIND_SERVER and invoke.kind == Span.SPAN_KIND_INTERNAL
    assert request.trace_id == invoke.trace_id and invoke.parent_span_id == request.span_id
    assert len(request.trace_id) == 16 and len({request.span_id, invoke.span_id}) == 2
    begun, ended = request.start_time_unix_nano, request.end_time_unix_nano
    assert begun <= invoke.start_time_unix_nano <= invoke.end_time_unix_nano <= ended
    assert abs(time.time() - ended / 1e9) < PATIENCE
    expected = {
        "http.request.method": "POST",
        "url.path": "/",
        "url.scheme": "http",
        "http.route": "/",
        "faas.trigger": "http",
        "faas.invocation_id": request_id,
        "faas.coldstart": is_first,
    }
    if status is not None:
        expected["http.response.status_code"] = status
    if error is not None:
        expected["error.type"] = error
    assert attributes(request) == expected, (attributes(request), expected)
    work = attributes(invoke)
    assert work.pop("faas_worker.process") >= 1
    assert work == ({} if error is None else {"error.type": error}), work
    failed = {True: Status.STATUS_CODE_ERROR, False: Status.STATUS_CODE_UNSET}
    assert request.status.code == failed[status is not None and status >= 500], request.status
    assert invoke.status.code == failed[error is not None], invoke.status
    return request, invoke


def spans_have_parents_and_attributes():
    named = {
        "OTEL_SERVICE_NAME": "decode",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,team=iot%2Cedge",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=k-1",
    }
    with receiving() as receiver, Running(receiver.port, "--timeout", "300ms", **named) as worker:
        trace, parent = CALLER
        # With a caller's trace.
        headers = {"traceparent": f"00-{trace}-{parent}-01", "tracestate": "a=1,b=2"}
        status, answer = worker.post("r-1", headers)
        request, _ = check_pair(receiver.next(2), "r-1", 200, is_first=True)
        assert request.trace_id.hex() == trace and request.parent_span_id.hex() == parent
        assert request.trace_state == "a=1,b=2" and request.flags == 0x301
        own = request.span_id.hex()
        assert answer["result"] == [f"00-{trace}-{own}-01", "a=1,b=2"], answer
        assert status == 200 and own != parent
        resource = receiver.resources[0]
        assert resource["service.name"] == "decode" and resource["team"] == "iot,edge", resource
        assert resource["telemetry.sdk.language"] == "rust" and resource["service.version"]
        assert receiver.bodies[0][0]["x-api-key"] == "k-1"
        # Without one: a new trace with the random flag.
        _, answer = worker.post("r-2")
        request, _ = check_pair(receiver.next(2), "r-2", 200)
        given = f"00-{request.trace_id.hex()}-{request.span_id.hex()}-03"
        assert answer["result"] == [given, None] and request.parent_span_id == b""
        assert request.flags == 0x103
        # Of a caller that samples nothing there is no span, and its context stays as it is.
        headers = {"traceparent": f"00-{trace}-{parent}-02"}
        assert worker.post("r-3", headers)[1]["result"] == [headers["traceparent"], None]
        # Failures.
        assert worker.post("error")[0] == 404
        check_pair(receiver.next(2), "error", 404, "handler_error")
        assert worker.post("exit")[0] == 502
        check_pair(receiver.next(2), "exit", 502, "handler_exited")
        assert worker.post("sleep 3")[0] == 504
        check_pair(receiver.next(2), "sleep-3", 504, "handler_timeout", is_first=True)
        assert worker.post("bad", body="{}")[0] == 422
        (refused,) = receiver.next(1)
        assert refused.status.code == Status.STATUS_CODE_UNSET
        assert attributes(refused)["error.type"] == "invalid_request"
        assert "faas.coldstart" not in attributes(refused)
        # A client that leaves.
        with socket.create_connection(("127.0.0.1", worker.port)) as leaver:
            body = b'{"payload":"sleep 0.2"}'
            head = f"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
            leaver.sendall(head.encode() + body)
            time.sleep(0.05)
        (gone,) = receiver.next(1)
        told = attributes(gone)
        assert told["error.type"] == "client_gone" and "http.response.status_code" not in told
        assert gone.status.code == Status.STATUS_CODE_UNSET
        worker.stop()
        assert receiver.spans.empty() and not worker.events("lost"), worker.text()


def only_four_refusals_are_repeated():
    with receiving() as receiver, Running(receiver.port) as worker:
        for number, status in enumerate((429, 502, 503, 504)):
            receiver.refusals = [status]
            worker.post(f"again-{number}")
            check_pair(receiver.next(2), f"again-{number}", 200, is_first=number == 0)
            assert receiver.bodies[-1][1] == receiver.bodies[-2][1]
        for number, status in enumerate((400, 401, 500, 501)):
            seen = len(receiver.bodies)
            receiver.refusals = [status]
            worker.post(f"final-{number}")
            end = time.monotonic() + PATIENCE
            while len(receiver.bodies) == seen and time.monotonic() < end:
                time.sleep(0.01)
            worker.post(f"next-{number}")
            check_pair(receiver.next(2), f"next-{number}", 200)
            assert len(receiver.bodies) == seen + 2, "repeated"
        worker.stop()
        (summary,) = worker.events("spans were lost in all")
        assert summary["spans"] == 8, summary
        assert len(worker.events("takes spans again")) == 4


def spans_that_wait_are_sent_at_the_end():
    with receiving() as receiver:
        with Running(receiver.port, OTEL_BSP_SCHEDULE_DELAY="600000") as worker:
            for number in range(50):
                worker.post(f"r-{number}")
            assert receiver.taken == 0
            worker.stop()
            assert receiver.taken == 100, receiver.taken
            assert not worker.events("lost")


def a_receiver_that_is_slow_or_dead_costs_no_request():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        refusing = nobody.getsockname()[1]
    with socket.socket() as silent:
        # Accepts by its backlog, and never answers.
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        for port in (refusing, silent.getsockname()[1]):
            options = ("--drain-timeout", "2s")
            with Running(port, *options, OTEL_BSP_MAX_QUEUE_SIZE="100") as worker:
                took = []
                for number in range(300):
                    begun = time.monotonic()
                    assert worker.post(f"r-{number}")[0] == 200
                    took.append(time.monotonic() - begun)
                assert sorted(took)[150] < 0.1, sorted(took)
                stopped = worker.stop()
                assert stopped < 5, stopped
                (summary,) = worker.events("spans were lost in all")
                assert summary["spans"] == 600, summary
                assert len(worker.events("OTEL_BSP_MAX_QUEUE_SIZE")) <= 1
                assert len(worker.events("does not take them")) <= 1


def spans_beyond_the_limit_are_lost_and_told_once():
    with receiving() as receiver:
        limit = {"OTEL_BSP_MAX_QUEUE_SIZE": "20", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}
        with Running(receiver.port, **limit) as worker:
            receiver.is_open.clear()
            for number in range(200):
                assert worker.post(f"r-{number}")[0] == 200
            receiver.is_open.set()
            worker.stop()
            (summary,) = worker.events("spans were lost in all")
            assert summary["spans"] + receiver.taken == 400, (summary, receiver.taken)
            assert len(worker.events("OTEL_BSP_MAX_QUEUE_SIZE")) == 1


def variables_turn_traces_off_or_thin_them_out():
    trace, parent = CALLER
    headers = {"traceparent": f"00-{trace}-{parent}-01"}
    for variables in (
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
    ):
        with receiving() as receiver, Running(receiver.port, **variables) as worker:
            assert worker.post("r-1", headers)[1]["result"] == [headers["traceparent"], None]
            assert worker.post("r-2")[1]["result"] == [None, None]
            worker.stop()
            assert not receiver.bodies, variables
    share = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.5"}
    with receiving() as receiver, Running(receiver.port, **share) as worker:
        flags = [worker.post(f"r-{n}")[1]["result"][0][-2:] for n in range(200)]
        worker.stop()
        sampled = flags.count("03")
        assert set(flags) == {"02", "03"} and 60 <= sampled <= 140, sampled
        assert receiver.taken == 2 * sampled


def main():
    for check in (
        spans_have_parents_and_attributes,
        only_four_refusals_are_repeated,
        spans_that_wait_are_sent_at_the_end,
        a_receiver_that_is_slow_or_dead_costs_no_request,
        spans_beyond_the_limit_are_lost_and_told_once,
        variables_turn_traces_off_or_thin_them_out,
    ):
        begun = time.monotonic()
        check()
        print(f"ok  {check.__name__.replace('_', ' ')} ({time.monotonic() - begun:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
