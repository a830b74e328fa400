"""The same function in every language: in processes behind the worker, and in servers of that
language. Knows each contender's command and what it needs; never measures."""

import grp
import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import servers
from servers import BENCH, CONTENDERS, FUNCTIONS, RELEASE, ROOT, WORK, Program, Server

# As the worker has by default, so that each contender has as many.
PROCESSES = servers.default_processes()
CONNECTIONS = 64

# Distributions keep servers where only root's PATH leads.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


@dataclass
class Contender:
    """A way to serve the function. `needs` are programs and Python modules it cannot do without."""

    name: str
    make: Callable[[], Server]
    needs: tuple = ()
    connections: int = CONNECTIONS

    def missing(self):
        """What it needs and is not installed."""
        return [need for need in self.needs if not (find(need) or servers.has(need))]


@dataclass
class Language:
    """`behind`: in processes behind the worker, the usual way first. `inside`: in a server."""

    name: str
    behind: list
    inside: list


def find(program):
    """Where a program is; php-fpm has its version in its name in Debian."""
    if found := shutil.which(program, path=PATH):
        return found
    versions = (Path(folder).glob(f"{program}[0-9]*") for folder in PATH.split(os.pathsep))
    return max((str(path) for paths in versions for path in paths), default=None)


def behind_worker(what, handler, needs=(), directory=ROOT, connections=CONNECTIONS):
    make = lambda: servers.worker(handler, directory=directory)
    return Contender(f"faas-worker, {what}", make, needs, connections)


def loops(interpreter, program):
    """A loop over lines, with `"concurrency":1` announced and with nothing announced."""
    path = CONTENDERS / program
    return [
        behind_worker("order announced", [interpreter, path, "1"], (interpreter,)),
        behind_worker("plain loop", [interpreter, path], (interpreter,)),
    ]


def python_server(name, command, needs, environment=None, connections=CONNECTIONS):
    environment = {"BENCH_FUNCTIONS": str(FUNCTIONS), **(environment or {})}
    make = lambda: Server(name, command(), environment, CONTENDERS, PROCESSES)
    return Contender(name, make, needs, connections)


def python():
    granian = ["--interface", "rsgi", "--workers", PROCESSES, "--no-ws", "--log-level", "warning"]
    uvicorn = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level"]
    uvicorn += ["warning", "--workers", PROCESSES]
    module = lambda name, app: [servers.sys.executable, "-m", name, app, "--port", "{port}"]
    uwsgi = ["--ini", "uwsgi.ini", "--wsgi-file", "uwsgi_app.py", "--processes", PROCESSES]
    return Language(
        "Python",
        [
            behind_worker("serve.py", SERVE_PY, directory=FUNCTIONS),
            # For uWSGI, which has no other number of connections.
            behind_worker(
                f"serve.py, {PROCESSES} connections",
                SERVE_PY,
                directory=FUNCTIONS,
                connections=PROCESSES,
            ),
        ],
        [
            python_server(
                "granian", lambda: [*module("granian", "granian_app:app"), *granian], ("granian",)
            ),
            python_server(
                "uvicorn",
                lambda: [*module("uvicorn", "asgi_app:app"), *uvicorn],
                ("uvicorn", "uvloop", "httptools"),
            ),
            # A process of it serves no other connection while one is open.
            python_server(
                f"uWSGI, {PROCESSES} connections",
                lambda: [find("uwsgi"), *uwsgi, "--http11-socket", "127.0.0.1:{port}"],
                ("uwsgi",),
                connections=PROCESSES,
            ),
        ],
    )


SERVE_PY = [servers.sys.executable, "serve.py", "handler.decode_type_a"]


def node():
    path = CONTENDERS / "handler.js"
    cluster = ["node", CONTENDERS / "cluster.js", "{port}", PROCESSES]
    several = behind_worker("64 at once announced", ["node", path, "64"], ("node",))
    make = lambda: Server("node:cluster", cluster, children=PROCESSES)
    return Language(
        "Node",
        [*loops("node", "handler.js"), several],
        [Contender("node:http in node:cluster", make, ("node",))],
    )


def ruby():
    environment = {"BENCH_PROCESSES": str(PROCESSES)}
    command = ["puma", "-C", "puma.rb", "-b", "tcp://127.0.0.1:{port}", "config.ru"]
    make = lambda: Server("puma", command, environment, CONTENDERS, PROCESSES)
    return Language("Ruby", loops("ruby", "handler.rb"), [Contender("puma", make, ("puma",))])


def php():
    needs = ("nginx", "php-fpm")
    return Language(
        "PHP",
        loops("php", "handler.php"),
        [Contender("php-fpm behind nginx", php_fpm_behind_nginx, needs)],
    )


def php_fpm_behind_nginx():
    folder = WORK / "php"
    folder.mkdir(parents=True, exist_ok=True)
    command = [find("nginx"), "-p", folder, "-e", "stderr", "-c", folder / "nginx.conf"]
    fpm = [find("php-fpm"), "--nodaemonize", "--fpm-config", folder / "php-fpm.conf"]
    if os.geteuid() == 0:
        fpm.append("--allow-to-run-as-root")
    behind = Program("php-fpm", fpm, directory=folder, children=PROCESSES)
    behind.log = folder / "php-fpm.log"
    server = Server("nginx", command, directory=folder, behind=[behind])
    for name in ("nginx.conf", "php-fpm.conf"):
        (folder / name).write_text(filled_in((CONTENDERS / name).read_text(), server.port))
    return server


def filled_in(text, port):
    """A configuration with the words in braces replaced, which neither program has otherwise."""
    values = {
        "port": port,
        "processes": PROCESSES,
        "contenders": CONTENDERS,
        "user": pwd.getpwuid(os.geteuid()).pw_name,
        "group": grp.getgrgid(os.getegid()).gr_name,
    }
    for word, value in values.items():
        text = text.replace("{" + word + "}", str(value))
    return text


def rust():
    def hyper(threads):
        command = [BENCH, "bare-hyper", "--decode", "--threads", threads]
        return lambda: Server("hyper", [*command, "--listen", "127.0.0.1:{port}"])

    handler = [RELEASE / "examples" / "decode_type_a"]
    return Language(
        "Rust",
        [behind_worker("handler library", handler)],
        [
            Contender("hyper, 1 thread", hyper(1)),
            Contender(f"hyper, {PROCESSES} threads", hyper(PROCESSES)),
        ],
    )


def languages():
    return [python(), node(), ruby(), php(), rust()]
