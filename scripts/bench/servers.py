"""Starts and stops the servers under test. Knows each contender's command; never measures."""

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


class Server:
    """A server that runs from `with` to the end of it. `{port}` in its command is its port."""

    def __init__(self, name, command, environment=None, directory=ROOT, children=0):
        self.name = name
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.command = [str(word).replace("{port}", str(self.port)) for word in command]
        values = {
            key: str(value).replace("{port}", str(self.port))
            for key, value in (environment or {}).items()
        }
        self.environment = {**os.environ, **values}
        self.directory = directory
        self.children = children
        self.process = None

    def __enter__(self):
        WORK.mkdir(parents=True, exist_ok=True)
        with open(WORK / "server.log", "wb") as log:
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
            self._wait_for_200()
            self._wait_for_children()
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
        log = (WORK / "server.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.name} does not serve: {last}\n{log}")

    def _wait_for_children(self):
        """Waits for all processes: a worker serves as soon as the first one is up."""
        end = time.monotonic() + STARTS_WITHIN
        tasks = Path(f"/proc/{self.process.pid}/task")
        while (
            sum(len((task / "children").read_text().split()) for task in tasks.iterdir())
            < self.children
        ):
            if time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not have {self.children} processes")
            time.sleep(0.01)

    def ask(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        headers = {"content-type": "application/json"}
        connection.request("POST", "/", json.dumps({"payload": PAYLOAD}), headers)
        answer = connection.getresponse()
        status, body = answer.status, answer.read()
        connection.close()
        return status, body

    def processor_seconds(self):
        """Processor time of the server's own process so far, all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_kib(self, field):
        """A figure of the server's own process: VmRSS, or VmHWM for the highest so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(field))
        return int(line.split()[1])


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
