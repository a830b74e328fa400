#!/usr/bin/env python3
"""Runs a Python function as a handler of faas-worker.

    serve.py [--concurrency N] MODULE.FUNCTION
    serve.py [--concurrency N] path/to/file.py:FUNCTION

The function takes the payload, a str, and returns what JSON can hold. It may be async: then up to
N payloads (default 64) are worked on at once, on one event loop. An exception is answered with
status 400 and str(exception); one that has `status_code` and `detail`, as those of web frameworks
have, with these. MODULE is looked for in the current directory first. What the function prints
goes to the log of the worker.

One file, no dependencies, Python 3.8 or later: copy it to where it is needed.
"""

import asyncio
import fcntl
import functools
import inspect
import io
import json
import os
import select
import signal
import sys
import traceback
import types

USAGE = "usage: serve.py [--concurrency N] MODULE.FUNCTION | path/to/file.py:FUNCTION"
READ_BLOCK_BYTES = 64 * 1024


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
    try:
        function = load(arguments[0])
    except NotLoaded as error:
        log(f"serve.py: cannot load {arguments[0]!r}: {error}")
        sys.exit(1)
    try:
        if is_async(function):
            asyncio.run(serve_async(function, requests, replies, concurrency))
        else:
            serve_sync(function, requests, replies)
    except BrokenPipeError:
        log("serve.py: nobody reads the replies any more")
        sys.exit(1)


# ---- Pipes --------------------------------------------------------------------------------------


def take_pipes():
    """Takes stdin and stdout away for the lines alone and returns their new descriptors.

    Whatever writes to descriptor 1 afterwards (print, a C extension, a subprocess) writes to the
    log, and whatever reads descriptor 0 finds nothing.
    """
    # From 3 on: a plain dup() would land on 2 if that were closed.
    requests = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    replies = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    try:
        os.dup2(2, 1)
    except OSError:
        os.dup2(null, 1)
    # One write a line, also under PYTHONUNBUFFERED, and no character that cannot be printed.
    sys.stdout.reconfigure(
        encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=False
    )
    return requests, replies


def write_all(descriptor, data):
    while data:
        try:
            written = os.write(descriptor, data)
            if written == len(data):
                return
            data = memoryview(data)[written:]
        except BlockingIOError:
            # Somebody who shares the pipe has set it to non-blocking.
            select.select([], [descriptor], [])


def log(text):
    # One write, so that the lines of a traceback stay together. A closed stderr is no reason to
    # fail.
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


# ---- Serving ------------------------------------------------------------------------------------


def serve_sync(function, requests, replies):
    """Answers strictly in order; each reply is written before the next request is looked at."""
    write_all(replies, b'{"ready":true,"concurrency":1}\n')
    loop = None
    for line in open(requests, "rb", buffering=READ_BLOCK_BYTES):
        request = parse(line)
        if request is None:
            continue
        number, payload = request
        try:
            result = function(payload)
            if type(result) is types.CoroutineType:
                # An async function behind a decorator that hides it.
                loop = loop or asyncio.new_event_loop()
                result = loop.run_until_complete(result)
        except BaseException as error:
            reply = failure_line(number, error)
        else:
            reply = result_line(number, result)
        write_all(replies, reply)


async def serve_async(function, requests, replies, concurrency):
    """Answers as the answers come; at the end of the requests, finishes those begun."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    tasks = {}
    pieces = []

    async def answer(number, payload):
        try:
            result = await function(payload)
        except BaseException as error:
            reply = failure_line(number, error)
        else:
            reply = result_line(number, result)
        try:
            write_all(replies, reply)
        except OSError as error:
            if not ended.done():
                ended.set_exception(error)
        finally:
            tasks.pop(number, None)

    def read():
        block = os.read(requests, READ_BLOCK_BYTES)
        pieces.append(block)
        if block and b"\n" not in block:
            return
        lines = io.BytesIO(b"".join(pieces)).readlines()
        pieces.clear()
        if block and lines[-1][-1:] != b"\n":
            pieces.append(lines.pop())
        for line in lines:
            request = parse(line)
            if request is not None:
                task = loop.create_task(answer(*request))
                tasks[request[0]] = task
        if not block:
            loop.remove_reader(requests)
            if not ended.done():
                ended.set_result(None)

    write_all(replies, b'{"ready":true,"concurrency":%d}\n' % concurrency)
    try:
        loop.add_reader(requests, read)
    except PermissionError:
        # A regular file is always readable, and epoll refuses it.
        while not ended.done():
            read()
            await asyncio.sleep(0)
    await ended
    while tasks:
        await asyncio.wait(list(tasks.values()))


# ---- Lines --------------------------------------------------------------------------------------

scan = json.JSONDecoder().scan_once


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
        try:
            text = encode(result)
        except TypeError:
            text = encode(with_plain_keys(result))
        try:
            return f'{{"id":{number},"result":{text}}}\n'.encode()
        except UnicodeEncodeError:
            # Half a surrogate pair has no UTF-8; JSON can write it as an escape.
            text = json.dumps(json.loads(text))
            return f'{{"id":{number},"result":{text}}}\n'.encode()
    except BaseException as error:
        log_exception(error)
        return error_line(number, f"the function's result is not JSON: {text_of(error)}", 500)


def failure_line(number, error):
    status, detail = getattr(error, "status_code", None), getattr(error, "detail", None)
    if isinstance(status, int) and detail is not None:
        if not 400 <= status <= 499:
            status = 500 if status >= 500 else 400
        return error_line(number, detail if isinstance(detail, str) else text_of(detail), status)
    log_exception(error)
    if isinstance(error, Exception):
        return error_line(number, text_of(error))
    described = f"{type(error).__name__}: {text_of(error)}".rstrip(": ")
    return error_line(number, f"the function raised {described}", 500)


def error_line(number, message, status=None):
    # Half a surrogate pair is in no UTF-8 message.
    message = message.encode("utf-8", "backslashreplace").decode()
    error = message if status is None else {"message": message, "status": int(status)}
    return b'{"id":%d,"error":%s}\n' % (number, json.dumps(error).encode())


def text_of(value):
    try:
        return str(value)
    except Exception:
        return type(value).__name__


def log_exception(error):
    # The first frame is ours.
    frames = error.__traceback__ and error.__traceback__.tb_next
    log("".join(traceback.format_exception(type(error), error, frames)).rstrip("\n"))


# ---- Results as JSON ----------------------------------------------------------------------------


def plain(value):
    """What JSON cannot hold, as FastAPI's jsonable_encoder turns it into what it can."""
    import collections
    import dataclasses
    import datetime
    import decimal
    import enum
    import ipaddress
    import pathlib
    import re
    import uuid

    if hasattr(value, "model_dump") and not isinstance(value, type):
        return value.model_dump(mode="json", by_alias=True)
    if hasattr(value, "__fields__") and hasattr(value, "dict") and not isinstance(value, type):
        return value.dict(by_alias=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        exponent = value.as_tuple().exponent
        return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, re.Pattern):
        return value.pattern
    if isinstance(value, (set, frozenset, collections.deque, types.GeneratorType)):
        return list(value)
    if isinstance(
        value,
        (uuid.UUID, pathlib.PurePath)
        + (ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network)
        + (ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network),
    ):
        return str(value)
    for members in (dict, vars):
        try:
            return members(value)
        except (TypeError, ValueError):
            pass
    raise ValueError(f"an object of type {type(value).__name__}")


JSON_KEYS = (str, int, float, type(None))


def with_plain_keys(value):
    """A copy in which every key is one that JSON can hold."""
    if isinstance(value, dict):
        return {
            (key if isinstance(key, JSON_KEYS) else plain(key)): with_plain_keys(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [with_plain_keys(item) for item in value]
    if isinstance(value, JSON_KEYS):
        return value
    return with_plain_keys(plain(value))


encoder = json.JSONEncoder(
    default=plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")
)


def fastest_encode():
    """The encoder's encode, which builds its C part anew for each value, with one built once."""
    try:
        from json.encoder import c_make_encoder, encode_basestring

        chunks = c_make_encoder(
            None, plain, encode_basestring, None, ":", ",", False, False, False
        )
        if "".join(chunks({"é": [1, None]}, 0)) != '{"é":[1,null]}':
            return encoder.encode
    except Exception:
        # An inside of the json module, which another Python may have otherwise or not at all.
        return encoder.encode
    join = "".join
    return lambda value: join(chunks(value, 0))


encode = fastest_encode()


# ---- Loading ------------------------------------------------------------------------------------


class NotLoaded(Exception):
    """Why there is no function, in words for whoever wrote its name."""


def load(name):
    script_directory = os.path.dirname(os.path.abspath(__file__))
    if sys.path and os.path.abspath(sys.path[0]) == script_directory:
        sys.path[0] = os.getcwd()
    else:
        sys.path.insert(0, os.getcwd())
    separator = ":" if ":" in name else "."
    module_name, _, attribute = name.rpartition(separator)
    if not module_name or not attribute or name.endswith(".py"):
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
