"""Starts and stops the servers under test. Knows each contender's command; never measures."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target" / "release"
BENCH = RELEASE / "examples" / "bench"
ECHO = RELEASE / "examples" / "echo"
WORKER = RELEASE / "faas-worker"
WORK = ROOT / "target" / "bench"
CONTENDERS = ROOT / "scripts" / "bench" / "contenders"
FUNCTIONS = ROOT / "examples" / "python"

PAYLOAD = "dev-1,42,1678886400"
STARTS_WITHIN = 30
STOPS_WITHIN = 15


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Program:
    """A program that runs from `with` to the end of it, alone or for a server in front of it."""

    def __init__(self, name, command, environment=None, directory=ROOT, children=0):
        self.name = name
        self.command = [str(word) for word in command]
        self.environment = {**os.environ, **(environment or {})}
        self.directory = directory
        self.children = children
        self.log = WORK / "server.log"
        self.process = None

    def __enter__(self):
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._wait_until_up()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOPS_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _wait_until_up(self):
        self._wait_for_children()

    def _wait_for_children(self):
        """Waits for all processes: a worker serves as soon as the first one is up."""
        end = time.monotonic() + STARTS_WITHIN
        while len(children_of(self.process.pid)) < self.children:
            if self.process.poll() is not None or time.monotonic() > end:
                log = self.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} does not have {self.children} processes\n{log}")
            time.sleep(0.01)

    def processor_seconds(self):
        """Processor time that the program and all processes below it have had."""
        ticks, pids = 0, [self.process.pid]
        for pid in pids:
            try:
                # Behind the name, which may hold spaces: utime and stime are fields 14 and 15.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                pids += children_of(pid)
            except (FileNotFoundError, ProcessLookupError):
                continue
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


    def children_memory_kib(self, field):
        """A figure of memory of the processes below the program, for each of its children: Pss
        shares what several processes have in common among them."""
        direct = children_of(self.process.pid)
        pids = list(direct)
        for pid in pids:
            pids += children_of(pid)
        sizes = [figure_of(Path(f"/proc/{pid}/smaps_rollup"), field) for pid in pids]
        return sum(sizes) / len(direct)


def figure_of(path, field):
    """The number in the first line of a file of /proc that begins with the field."""
    lines = path.read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def children_of(pid):
    tasks = Path(f"/proc/{pid}/task")
    try:
        texts = [(task / "children").read_text() for task in tasks.iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(child) for text in texts for child in text.split()]


class Server(Program):
    """A program that serves HTTP. `{port}` in its command is its port. `behind` are programs that
    it cannot serve without: they are started before it, stopped after it, and count as part of it."""

    def __init__(self, name, command, environment=None, directory=ROOT, children=0, behind=()):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        command = [str(word).replace("{port}", str(self.port)) for word in command]
        values = {
            key: str(value).replace("{port}", str(self.port))
            for key, value in (environment or {}).items()
        }
        super().__init__(name, command, values, directory, children)
        self.behind = behind
        self.started = contextlib.ExitStack()

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            for program in self.behind:
                stack.enter_context(program)
            super().__enter__()
            self.started = stack.pop_all()
        return self

    def __exit__(self, *failure):
        super().__exit__(*failure)
        self.started.close()

    def _wait_until_up(self):
        self._wait_for_200()
        self._wait_for_children()

    def processor_seconds(self):
        own = super().processor_seconds()
        return own + sum(program.processor_seconds() for program in self.behind)

    def _wait_for_200(self):
        end = time.monotonic() + STARTS_WITHIN
        last = "no answer"
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            try:
                status, body = self.ask()
                if status == 200:
                    return
                last = f"{status} {body[:200]}"
            except OSError as error:
                last = str(error)
            time.sleep(0.01)
        log = self.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.name} does not serve: {last}\n{log}")

    def ask(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        headers = {"content-type": "application/json"}
        connection.request("POST", "/", json.dumps({"payload": PAYLOAD}), headers)
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
        connection.close()
        return status, body

    def own_processor_seconds(self):
        """Processor time of the server's own process so far, all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_kib(self, field):
        """A figure of the server's own process: VmRSS, or VmHWM for the highest so far."""
        return figure_of(Path(f"/proc/{self.process.pid}/status"), field)


def default_processes():
    return max(2, len(os.sched_getaffinity(0)))


def worker(handler, *options, name="faas-worker", directory=ROOT, processes=None):
    """The worker with its default settings, but for the options."""
    count = [] if processes is None else ["--processes", processes]
    command = [WORKER, "--port", "{port}", "--log-level", "warn", *count, *options, "--", *handler]
    return Server(name, command, directory=directory, children=processes or default_processes())


def worker_echo(*options, processes=None):
    return worker([ECHO], *options, name="faas-worker, Rust echo", processes=processes)


SH_LOOP = ROOT / "examples" / "shell" / "minimal.sh"
SH_PROCESSES = 2


def worker_sh():
    return worker([SH_LOOP], name="faas-worker, sh without ids", processes=SH_PROCESSES)


def worker_python():
    handler = [sys.executable, "serve.py", "handler.decode_type_a"]
    return worker(handler, name="faas-worker, Python function", directory=FUNCTIONS)


def sleep_command(time_text):
    return [BENCH, "sleep", time_text]


def worker_sleep(time_text, processes, *options):
    handler = sleep_command(time_text)
    return worker(handler, *options, name=f"faas-worker, {time_text} handler", processes=processes)


def bare_hyper():
    return Server("bare hyper", [BENCH, "bare-hyper", "--listen", "127.0.0.1:{port}"])


def uvicorn():
    command = [sys.executable, "-m", "uvicorn", "fastapi_app:app", "--port", "{port}"]
    command += [
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--no-access-log",
        "--log-level",
        "warning",
    ]
    return Server("FastAPI on uvicorn", command, {"BENCH_FUNCTIONS": FUNCTIONS}, CONTENDERS)


def granian(workers):
    command = [sys.executable, "-m", "granian", "granian_app:app", "--port", "{port}"]
    command += ["--interface", "rsgi", "--workers", workers, "--no-ws", "--log-level", "warning"]
    name = f"granian, {workers} process" + ("es" if workers > 1 else "")
    return Server(name, command, {"BENCH_FUNCTIONS": FUNCTIONS}, CONTENDERS)


def of_watchdog():
    """Its HTTP mode, in front of the bare server: what it adds, and nothing of a language's."""
    behind = free_port()
    environment = {
        "mode": "http",
        "port": "{port}",
        "fprocess": f"{BENCH} bare-hyper --listen 127.0.0.1:{behind}",
        "upstream_url": f"http://127.0.0.1:{behind}",
        "log_buffer_size": "0",
    }
    return Server("of-watchdog, HTTP mode", ["of-watchdog"], environment)


def has(module):
    found = subprocess.run(
        [sys.executable, "-c", f"import {module}"], stderr=subprocess.DEVNULL, check=False
    )
    return found.returncode == 0


def python_contenders():
    """Those of the Python contenders that are installed, as functions that make them."""
    found = []
    if has("uvicorn") and has("fastapi") and has("uvloop") and has("httptools"):
        found.append(uvicorn)
    if has("granian"):
        found += [lambda: granian(1), lambda: granian(2)]
    return found


def other_contenders():
    return [of_watchdog] if shutil.which("of-watchdog") else []
