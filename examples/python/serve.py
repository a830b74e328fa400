#!/usr/bin/env python3
"""Runs a Python function as a handler of faas-worker.

    serve.py [--concurrency N] MODULE.FUNCTION
    serve.py [--concurrency N] path/to/file.py:FUNCTION

The function takes the payload, a str, and returns what FastAPI could turn into JSON. One with a
second parameter, `def handle(payload, context)`, gets a Context with it. It may be
async: then up to N payloads (default 64) are worked on at once, on one event loop. An exception is
answered with status 400 and str(exception); one that has `status_code` and `detail`, as those of
web frameworks have, with these. MODULE is looked for in the current directory first. What the
function prints goes to the log of the worker.

One file, no dependencies, Python 3.8 or later: copy it to where it is needed.
"""

import sys

if sys.version_info < (3, 8):
    version = ".".join(map(str, sys.version_info[:3]))
    sys.exit(f"serve.py: needs Python 3.8 or later, and {sys.executable} is Python {version}")

import asyncio
import collections
import contextvars
import fcntl
import functools
import inspect
import io
import json
import marshal
import os
import re
import select
import signal
import stat
import time
import traceback
import types

USAGE = "usage: serve.py [--concurrency N] MODULE.FUNCTION | path/to/file.py:FUNCTION"
READ_BLOCK_BYTES = 64 * 1024
# How long tasks that functions have started may take once there are no more requests.
LAST_TASKS_SECONDS = 1


def main():
    arguments = sys.argv[1:]
    concurrency = 64
    if len(arguments) == 3 and arguments[0] == "--concurrency" and arguments[1].isdigit():
        concurrency = max(1, int(arguments[1]))
        arguments = arguments[2:]
    if len(arguments) != 1 or arguments[0].startswith("-"):
        log(USAGE)
        sys.exit(2)
    # Ctrl-C ends the process, and never turns up as an exception of the function.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    requests, replies = take_pipes()
    outlive_sigterm(requests)
    loop = Loop()
    asyncio.set_event_loop(loop)
    allow_loops_within()
    try:
        function = loop.lend_to(load, arguments[0])
    except NotLoaded as error:
        log(f"serve.py: cannot load {arguments[0]!r}: {error}")
        sys.exit(1)
    if inspect.isasyncgenfunction(function):
        log(f"serve.py: {arguments[0]!r} {NO_STREAM}; each request will fail")
    lasting = asyncio.all_tasks(loop)
    try:
        if is_async(function):
            loop.run_until_complete(serve_async(function, requests, replies, concurrency))
        else:
            serve_sync(function, requests, replies, loop)
    except OSError as error:
        log(f"serve.py: cannot read requests or write replies any more: {error}")
        sys.exit(1)
    loop.end(lasting)


# ---- Pipes --------------------------------------------------------------------------------------


def take_pipes():
    """Takes stdin and stdout away for the lines alone and returns their new descriptors.

    Whatever writes to descriptor 1 afterwards (print, a C extension, a subprocess) writes to the
    log, and whatever reads descriptor 0 finds nothing.
    """
    try:
        # From 3 on: a plain dup() would land on 2 if that were closed.
        requests = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
        replies = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:
        log("serve.py: requests come on stdin and replies go to stdout, and one of them is closed")
        sys.exit(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:
        os.dup2(null, 1)
    # A new stream: the old one may believe that it can seek, as in the file that stdout was. One
    # write a line, also under PYTHONUNBUFFERED, and no character that cannot be printed.
    sys.stdout = sys.__stdout__ = open(
        1, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    return requests, replies


def outlive_sigterm(requests):
    """Puts SIGTERM off until the requests have ended: who sends it to all processes of a service
    at once, as systemd does, means the worker, which ends its processes when they are done.

    The worker closes the pipe of the requests before it sends the signal itself. A second signal
    ends the process as well, and a function may have a handler of its own.
    """
    if not stat.S_ISFIFO(os.fstat(requests).st_mode):
        return
    seen = []

    def put_off(number, frame):
        ended = select.poll()
        # Registered for nothing, it tells that the other end was closed, and only that.
        ended.register(requests, 0)
        # A process that is being started has a copy of the pipe for a moment.
        if seen or ended.poll(250):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append(number)

    def end_as_usual():
        if signal.getsignal(signal.SIGTERM) is put_off:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, put_off)
    # Not signal.SIG_IGN: programs that a function starts would inherit it.
    os.register_at_fork(after_in_child=end_as_usual)


def write_all(descriptor, data):
    while data:
        try:
            written = os.write(descriptor, data)
            if written == len(data):
                return
            data = memoryview(data)[written:]
        except BlockingIOError:
            # A program that shares the pipe has set it to non-blocking.
            select.select([], [descriptor], [])


def log(text):
    # One write, so that the lines of a traceback stay together. A closed stderr is no reason to
    # fail, nor is what a function has put in its place.
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except Exception:
        pass


@functools.lru_cache(maxsize=None)
def log_once(text):
    log(f"serve.py: {text}")


# ---- The loop -----------------------------------------------------------------------------------


class Loop(asyncio.SelectorEventLoop):
    """The loop that async functions run on.

    It is lent to modules while they are imported, and to functions that are not async: it counts as
    running then, and what they put on it is done as soon as they have returned.
    """

    is_used = False

    def is_running(self):
        return asyncio._get_running_loop() is self

    def is_lent(self):
        return self.is_running() and not super().is_running()

    def lend_to(self, function, *arguments):
        asyncio._set_running_loop(self)
        try:
            return function(*arguments)
        finally:
            asyncio._set_running_loop(None)

    async def wait_for(self, descriptor):
        """Does what there is to do until something can be read."""
        arrived = asyncio.Event()
        try:
            self.add_reader(descriptor, arrived.set)
        except PermissionError:
            # A regular file is always readable, and epoll refuses it.
            return
        try:
            await arrived.wait()
        except asyncio.CancelledError:
            # A function has cancelled all tasks that there are.
            pass
        finally:
            self.remove_reader(descriptor)

    def end(self, lasting):
        """Gives tasks that functions have started a moment to finish; cancels the `lasting`, which
        modules have started."""
        last = asyncio.all_tasks(self) - lasting
        if last:
            self.run_until_complete(asyncio.wait(last, timeout=LAST_TASKS_SECONDS))
        cancelled = [task for task in asyncio.all_tasks(self) if task.cancel()]
        if cancelled:
            self.run_until_complete(asyncio.wait(cancelled, timeout=LAST_TASKS_SECONDS))
        self.run_until_complete(self.shutdown_asyncgens())


def noting_use(name):
    method = getattr(asyncio.SelectorEventLoop, name)

    @functools.wraps(method)
    def noted(self, *arguments, **named):
        self.is_used = True
        # Once is enough: from now on the method is called as it was.
        setattr(self, name, method.__get__(self))
        return method(self, *arguments, **named)

    return noted


for name in (
    "call_soon", "call_at", "call_soon_threadsafe", "run_in_executor", "add_reader", "add_writer",
    "add_signal_handler",
):
    setattr(Loop, name, noting_use(name))


def allow_loops_within():
    """Lets asyncio.run() and its kin work while the loop is lent, as they do where none runs."""

    def allowed(method):
        @functools.wraps(method)
        def run(*arguments, **named):
            loop = asyncio._get_running_loop()
            if isinstance(loop, Loop) and loop.is_lent():
                asyncio._set_running_loop(None)
            try:
                return method(*arguments, **named)
            finally:
                asyncio._set_running_loop(loop)

        return run

    asyncio.run = asyncio.runners.run = allowed(asyncio.run)
    if hasattr(asyncio, "Runner"):
        asyncio.Runner.run = allowed(asyncio.Runner.run)
    for name in ("run_forever", "run_until_complete"):
        setattr(asyncio.BaseEventLoop, name, allowed(getattr(asyncio.BaseEventLoop, name)))


def wants_loop():
    """True if a module other than Python's and the ones of packages names asyncio.

    Functions that do not are called where no loop runs, as any program would call them: Django and
    others refuse to block where one does.
    """
    library = os.path.dirname(os.__file__)
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__file__", None)
        if name == "__main__" or not isinstance(path, str):
            continue
        if path.startswith(library) or "-packages" in path:
            continue
        try:
            with open(path, "rb") as file:
                if re.search(rb"\basyncio\b", file.read()):
                    return True
        except OSError:
            pass
    return False


# ---- Serving ------------------------------------------------------------------------------------


class Requests(io.RawIOBase):
    """What comes on a descriptor; while nothing does, what is on the loop is done."""

    def __init__(self, descriptor, loop):
        self.descriptor, self.loop = descriptor, loop

    def readable(self):
        return True

    def readinto(self, buffer):
        while True:
            if self.loop.is_used:
                self.loop.run_until_complete(self.loop.wait_for(self.descriptor))
            try:
                return os.readv(self.descriptor, [buffer])
            except BlockingIOError:
                # A program that shares the pipe has set it to non-blocking.
                select.select([self.descriptor], [], [])


def serve_sync(function, requests, replies, loop):
    """Answers strictly in order; each reply is written before the next request is looked at."""
    is_lent = wants_loop()
    own_decimals = decimal_context_is_set()
    call, parse = ways_of(function)

    def answer(number, payload):
        try:
            if own_decimals:
                copy_decimal_context()
            result = call(payload)
            if type(result) is not str and isinstance(result, AWAITED):
                # An async function behind a decorator that hides it.
                result = loop.run_until_complete(result)
        except BaseException as error:
            return failure_line(number, error)
        return result_line(number, result)

    write_all(replies, ready_line(1, call is not function))
    if is_lent or loop.is_used:
        lines = io.BufferedReader(Requests(requests, loop), READ_BLOCK_BYTES)
    else:
        lines = open(requests, "rb", buffering=READ_BLOCK_BYTES)
    copy_context = contextvars.copy_context
    lend = asyncio._set_running_loop
    for line in lines:
        request = parse(line)
        if request is None:
            continue
        # A context of its own, so that what a request sets in it is gone with the request.
        if is_lent:
            lend(loop)
        reply = copy_context().run(answer, *request)
        if is_lent:
            lend(None)
        write_all(replies, reply)
        if loop.is_used:
            loop.run_until_complete(asyncio.sleep(0))


AWAITED = (types.CoroutineType, asyncio.Future)


def decimal_context_is_set():
    """True if a module has used decimals while it was imported: then all contexts share the one
    mutable object of decimal that is in this one."""
    return any(variable.name == "decimal_context" for variable in contextvars.copy_context())


def copy_decimal_context():
    import decimal

    decimal.setcontext(decimal.getcontext().copy())


async def serve_async(function, requests, replies, concurrency):
    """Answers as the answers come; at the end of the requests, finishes those begun."""
    loop = asyncio.get_running_loop()
    own_decimals = decimal_context_is_set()
    call, parse = ways_of(function)
    tasks = {}
    pieces = []
    lines = collections.deque()
    ended = asyncio.Event()
    failures = []

    async def answer(number, payload):
        try:
            if own_decimals:
                copy_decimal_context()
            result = await call(payload)
        except BaseException as error:
            reply = failure_line(number, error)
        else:
            reply = result_line(number, result)
        try:
            write_all(replies, reply)
        except OSError as error:
            failures.append(error)
            ended.set()
        finally:
            tasks.pop(number, None)
            if lines:
                begin()

    def begin():
        while lines and len(tasks) < concurrency:
            request = parse(lines.popleft())
            if request is not None:
                tasks[request[0]] = loop.create_task(answer(*request))
        # More are read when those that were read are at work.
        if lines:
            loop.remove_reader(requests)
        elif not ended.is_set():
            await_more()

    def answer_unstarted():
        for number in [number for number, task in tasks.items() if task.done()]:
            del tasks[number]
            write_all(replies, error_line(number, "cancelled before it was started", 500))

    def await_more():
        try:
            loop.add_reader(requests, read)
        except PermissionError:
            # A regular file is always readable, and epoll refuses it.
            loop.call_soon(read)

    def read():
        try:
            block = os.read(requests, READ_BLOCK_BYTES)
        except BlockingIOError:
            return
        pieces.append(block)
        if block and b"\n" not in block:
            return
        lines.extend(io.BytesIO(b"".join(pieces)).readlines())
        pieces.clear()
        if block and lines[-1][-1:] != b"\n":
            pieces.append(lines.pop())
        begin()
        if not block:
            loop.remove_reader(requests)
            ended.set()

    write_all(replies, ready_line(concurrency, call is not function))
    await_more()
    while not ended.is_set():
        try:
            await ended.wait()
        except asyncio.CancelledError:
            # A function has cancelled all tasks that there are.
            loop.call_soon(answer_unstarted)
    if failures:
        raise failures[0]
    while tasks:
        await asyncio.wait(list(tasks.values()))


# ---- Context ------------------------------------------------------------------------------------


class Context:
    """What is known of a request beside its payload.

    headers: a dict of the headers that `faas-worker --pass-header` names, in lower case.
    request_id: the id that the response carries in `x-request-id`.
    deadline: the time.monotonic() at which the caller no longer waits.
    traceparent, tracestate: the caller's W3C trace context, or None.
    """

    __slots__ = ("headers", "request_id", "deadline", "traceparent", "tracestate")

    def __init__(self, request):
        self.headers = request.get("headers", {})
        self.request_id = request.get("request_id")
        self.deadline = time.monotonic() + request.get("timeout_ms", 0) / 1000
        self.traceparent = request.get("traceparent")
        self.tracestate = request.get("tracestate")

    def time_left(self):
        """The seconds until the deadline; 0 when it has passed."""
        return max(0.0, self.deadline - time.monotonic())


# The context of the request that is being worked on, for what goes to `logging`.
current = contextvars.ContextVar("faas_worker_request", default=None)


def takes_context(function):
    """True for a second parameter that must be given, or that is called context."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return False
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    places = [parameter for parameter in parameters if parameter.kind in by_place]
    if len(places) < 2:
        return False
    return places[1].default is inspect.Parameter.empty or places[1].name == "context"


def ways_of(function):
    """How the function is called with what a line was parsed to, and how lines are parsed."""
    if not takes_context(function):
        return function, parse
    name_requests_in_logging()

    def call(request):
        payload, context = request
        current.set(context)
        return function(payload, context)

    return call, parse_with_context


def name_requests_in_logging():
    """Gives each record of `logging` the attribute `request_id`, for formats: `%(request_id)s`."""
    import logging

    make = logging.getLogRecordFactory()

    def named(*arguments, **named_arguments):
        record = make(*arguments, **named_arguments)
        context = current.get()
        record.request_id = context.request_id if context is not None else None
        return record

    logging.setLogRecordFactory(named)


def ready_line(concurrency, has_context):
    members = b""
    if has_context:
        members = b',"context":["headers","timeout_ms","request_id","traceparent","tracestate"]'
    return b'{"ready":true,"concurrency":%d%s}\n' % (concurrency, members)


# ---- Lines --------------------------------------------------------------------------------------

scan = json.JSONDecoder().scan_once


def parse_with_context(line):
    """Returns the id, and the payload with its context, of a request line."""
    request = parse(line)
    if request is None:
        return None
    number, payload = request
    return number, (payload, Context(scan(str(line, "utf-8"), 0)[0]))


def parse(line):
    """Returns the id and payload of a request line; None, and says why, if there are none."""
    try:
        text = str(line, "utf-8")
        request, end = scan(text, 0)
        number, payload = request["id"], request["payload"]
        # Without its newline a line may be cut short.
        if text[end:] == "\n" and type(number) is int and type(payload) is str:
            return number, payload
        reason = "not one object with id and payload and a newline after it"
    except StopIteration:
        reason = "not JSON"
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        reason = repr(error)
    log(f"serve.py: unusable request line: {reason}")
    return None


def result_line(number, result):
    try:
        text = quote(result) if type(result) is str else encode(result)
        try:
            return f'{{"id":{number},"result":{text}}}\n'.encode()
        except UnicodeEncodeError:
            # Half a surrogate pair has no UTF-8; JSON can write it as an escape.
            text = json.dumps(json.loads(text))
            return f'{{"id":{number},"result":{text}}}\n'.encode()
    except BaseException as error:
        if has_status(error):
            # Raised by a generator, which is the function still.
            return failure_line(number, error)
        log_exception(error)
        return error_line(number, f"the function's result is not JSON: {text_of(error)}", 500)


def failure_line(number, error):
    """The reply for what a function has raised. Raises nothing, whatever that is."""
    try:
        if has_status(error):
            if member(error, "headers"):
                log_once("the headers of an exception do not reach the caller, only status and text")
            status = error.status_code
            if not 400 <= status <= 499:
                status = 500 if status >= 500 else 400
            return error_line(number, text_of_detail(error.detail), status)
        log_exception(error)
        if isinstance(error, Exception):
            return error_line(number, text_of(error))
        described = f"{type(error).__name__}: {text_of(error)}".rstrip(": ")
        return error_line(number, f"the function raised {described}", 500)
    except BaseException as failure:
        log_exception(failure)
        return error_line(number, f"the function raised {type(error).__name__}", 500)


def error_line(number, message, status=None):
    # Half a surrogate pair is in no UTF-8 message.
    message = message.encode("utf-8", "backslashreplace").decode()
    error = message if status is None else {"message": message, "status": int(status)}
    return b'{"id":%d,"error":%s}\n' % (number, json.dumps(error).encode())


def has_status(error):
    return isinstance(member(error, "status_code"), int) and member(error, "detail") is not None


def member(value, name):
    try:
        return getattr(value, name, None)
    except BaseException:
        return None


def text_of(value):
    try:
        return str(value)
    except BaseException:
        return type(value).__name__


def text_of_detail(detail):
    """A text as it is, anything else as JSON."""
    if isinstance(detail, str):
        return detail
    try:
        text = encode(detail)
        return json.loads(text) if text.startswith('"') else text
    except BaseException:
        return text_of(detail)


def log_exception(error):
    # The first frame is ours.
    try:
        frames = error.__traceback__ and error.__traceback__.tb_next
        log("".join(traceback.format_exception(type(error), error, frames)).rstrip("\n"))
    except BaseException:
        log(f"{type(error).__name__}, of which no traceback can be made")


# ---- Results as JSON ----------------------------------------------------------------------------


PLAIN = frozenset((str, int, float, bool, type(None)))
NO_STREAM = "is an async generator, and a result cannot be streamed: return a list"
TEXT_CLASSES = frozenset((("pydantic.networks", "NameEmail"), ("pydantic.color", "Color")))


def jsonable(value):
    """What FastAPI's jsonable_encoder makes of a value, and in its order; but secrets of any kind
    are masked, and what it fails at is tried."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is list or kind is tuple:
        return [jsonable(item) for item in value]
    # Not hasattr(value, …), which objects that make up their members would affirm.
    kind = value.__class__
    if hasattr(kind, "get_secret_value"):
        return str(value)
    if hasattr(kind, "model_dump"):
        return jsonable(value.model_dump(mode="json", by_alias=True))
    if hasattr(kind, "__dataclass_fields__"):
        names = (field.name for field in known().fields(value))
        return jsonable_members({name: getattr(value, name) for name in names})
    if isinstance(value, known().Enum):
        return jsonable(value.value)
    if isinstance(value, known().Path):
        return str(value)
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, dict):
        return jsonable_members(value)
    if isinstance(value, (list, tuple, set, frozenset, collections.deque, types.GeneratorType)):
        return [jsonable(item) for item in value]
    for known_type, convert in known().conversions:
        if isinstance(value, known_type):
            return convert(value)
    bases = [(base.__module__, base.__name__) for base in kind.__mro__]
    if hasattr(kind, "unicode_string") or not TEXT_CLASSES.isdisjoint(bases):
        return str(value)
    if ("pydantic_core._pydantic_core", "PydanticUndefinedType") in bases:
        return None
    if ("pydantic.main", "BaseModel") in bases:
        # Of pydantic 1 itself, not of pydantic.v1: there FastAPI does as below.
        return jsonable(value.dict(by_alias=True))
    try:
        members = dict(value)
    except Exception:
        try:
            members = vars(value)
        except TypeError:
            what = f"an object of type {kind.__name__}"
            raise ValueError(f"it {NO_STREAM}" if hasattr(kind, "__aiter__") else what) from None
    if "status_code" in members and ("headers" in members or "raw_headers" in members):
        log_once(
            f"the function has returned a {kind.__name__}, of which neither status nor headers "
            "reach the caller; return the content alone, or raise what has status_code and detail"
        )
    return jsonable_members(members)


def jsonable_members(members):
    plain = {}
    for key, item in members.items():
        # Of SQLAlchemy, says FastAPI, and leaves it out of every dict.
        if isinstance(key, str) and key.startswith("_sa"):
            if "_sa_instance_state" not in members:
                log_once("members of a result whose names begin with _sa are left out")
            continue
        plain[jsonable(key)] = jsonable(item)
    return plain


@functools.lru_cache(maxsize=None)
def known():
    """Types that take time to import, and that few results hold."""
    import dataclasses
    import datetime
    import decimal
    import enum
    import ipaddress
    import pathlib
    import uuid

    def number(value):
        return int(value) if value.as_tuple().exponent >= 0 else float(value)

    internet = "IPv4Address IPv4Interface IPv4Network IPv6Address IPv6Interface IPv6Network"
    conversions = (
        (bytes, bytes.decode),
        (tuple(getattr(ipaddress, name) for name in internet.split()) + (uuid.UUID,), str),
        ((datetime.date, datetime.time), lambda value: value.isoformat()),
        (datetime.timedelta, lambda value: value.total_seconds()),
        (decimal.Decimal, number),
        (re.Pattern, lambda value: jsonable(value.pattern)),
    )
    return types.SimpleNamespace(
        fields=dataclasses.fields, Enum=enum.Enum, Path=pathlib.PurePath, conversions=conversions
    )


def encode(value):
    try:
        # Of the types of JSON it takes these alone, and no class that is derived from one: a str
        # may be a secret or have another value, and JSON's encoder in C would not ask.
        marshal.dumps(value)
        text = encode_plain(value)
    except (TypeError, ValueError):
        text = None
    if text is None or '"_sa' in text:
        text = encode_plain(jsonable(value))
    return text


encoder = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":")
)


def fastest_encode():
    """The encoder's encode, which builds its C part anew for each value, with one built once."""
    try:
        from json.encoder import c_make_encoder, encode_basestring

        chunks = c_make_encoder(
            None, encoder.default, encode_basestring, None, ":", ",", False, False, False
        )
        if "".join(chunks({"é": [1, None]}, 0)) != '{"é":[1,null]}':
            return encoder.encode
    except Exception:
        # An inside of the json module, which another Python may have otherwise or not at all.
        return encoder.encode
    join = "".join
    return lambda value: join(chunks(value, 0))


encode_plain = fastest_encode()
quote = json.encoder.encode_basestring


# ---- Loading ------------------------------------------------------------------------------------


class NotLoaded(Exception):
    """Why there is no function, in words for the author of its name."""


def load(name):
    script_directory = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == script_directory:
        sys.path[0] = os.getcwd()
    else:
        sys.path.insert(0, os.getcwd())
    separator = ":" if ":" in name else "."
    module_name, _, attribute = name.rpartition(separator)
    if name.endswith(".py"):
        raise NotLoaded(f"a file is given with its function, as in: serve.py {name}:FUNCTION")
    if not module_name or not attribute:
        raise NotLoaded("expected MODULE.FUNCTION, for example function.handler.handle")
    if module_name.endswith(".py") and separator == ":":
        module = import_file(module_name)
    else:
        module = import_module(module_name)
    if not hasattr(module, attribute):
        raise NotLoaded(
            f"module {module_name} ({getattr(module, '__file__', 'built in')}) "
            f"has no {attribute!r}{suggestion(module, attribute)}"
        )
    function = getattr(module, attribute)
    if not callable(function):
        raise NotLoaded(f"it is of type {type(function).__name__}, not a function")
    return function


def import_module(name):
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name + ".").startswith(error.name + "."):
            raise NotLoaded(
                f"no module named {error.name!r} in {os.getcwd()} or where Python keeps its own; "
                f"start in the directory that {error.name.partition('.')[0]} is in, or set PYTHONPATH"
            ) from None
        raise import_failure(name, error) from None
    except BaseException as error:
        raise import_failure(name, error) from None


def import_file(path):
    import importlib.util

    if not os.path.isfile(path):
        raise NotLoaded(f"no file {os.path.abspath(path)}")
    name = os.path.basename(path)[: -len(".py")]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        raise import_failure(name, error) from None
    return module


def import_failure(name, error):
    log_exception(error)
    return NotLoaded(
        f"module {name} was found, but fails while it is imported: "
        f"{type(error).__name__}: {text_of(error)}"
    )


def suggestion(module, attribute):
    import difflib

    functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
    close = difflib.get_close_matches(attribute, functions, 1) or functions[:8]
    return f"; it has {', '.join(close)}" if close else ""


def is_async(function):
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)
    )


if __name__ == "__main__":
    main()
