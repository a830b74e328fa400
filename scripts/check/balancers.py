"""Rolling restarts behind three balancers: see balancers.sh."""

import argparse
import asyncio
import contextlib
import os
import pathlib
import socket
import sys
import tempfile
import time
import urllib.request

import load

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "deploy" / "balancers"
WORKER = os.environ.pop("FAAS_WORKER")
# With a ready line: without one, a process that is given no request counts as up after 10 s.
HANDLER = ["sh", "-c", f"echo '{{\"ready\":true}}'; exec sh {ROOT}/examples/shell/minimal.sh"]
DRAIN_DELAY = "3s"
PATIENCE = 30

NGINX = """
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
daemon off;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/nginx.conf;
}}
"""
COMMANDS = {
    "nginx": ["nginx", "-e", "stderr", "-p", "{folder}", "-c", "{folder}/whole.conf"],
    "haproxy": ["haproxy", "-f", "{folder}/haproxy.cfg"],
    "caddy": ["caddy", "run", "--adapter", "caddyfile", "--config", "{folder}/Caddyfile"],
}
FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg", "caddy": "Caddyfile"}
# The balancers that ask /ready, and so leave out a worker whose handler does not start.
ASKING = ["haproxy", "caddy"]


class Wrong(Exception):
    """What does not hold."""


def free_ports(count):
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


async def until(what, is_so):
    end = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(is_so):
        if time.monotonic() > end:
            raise Wrong(f"not within {PATIENCE} s: {what}")
        await asyncio.sleep(0.02)


def status_of(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


async def end(process):
    if process.returncode is None:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except TimeoutError:
            process.kill()
            await process.wait()


class Worker:
    def __init__(self, port, log):
        self.port = port
        self.log = log
        self.process = None

    async def start(self, handler):
        command = [WORKER, "--port", str(self.port), "--processes", "2"]
        command += ["--drain-delay", DRAIN_DELAY, "--", *handler]
        self.process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )
        ready = 200 if handler == HANDLER else 503
        await until(f"/ready is {ready}", lambda: status_of(self.port, "/ready") == ready)

    async def restart(self, handler):
        await end(self.process)
        if self.process.returncode != 0:
            raise Wrong(f"a worker ended with status {self.process.returncode}")
        await self.start(handler)


def write_files(name, folder, ports, port):
    """The example's file with ports that are free here."""
    text = (EXAMPLES / FILES[name]).read_text()
    for number, worker in zip((8001, 8002, 8003), ports):
        if f"127.0.0.1:{number}" not in text:
            raise Wrong(f"{FILES[name]} has no worker at port {number}")
        text = text.replace(f"127.0.0.1:{number}", f"127.0.0.1:{worker}")
    text = text.replace(":8080", f":{port}")
    (folder / FILES[name]).write_text(text)
    if name == "nginx":
        (folder / "whole.conf").write_text(NGINX.format(folder=folder))


@contextlib.asynccontextmanager
async def balancer(name, folder, ports, port, log):
    write_files(name, folder, ports, port)
    command = [word.format(folder=folder) for word in COMMANDS[name]]
    environment = {**os.environ, "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment
    )
    try:
        await until(f"{name} answers", lambda: status_of(port, "/health") == 200)
        yield
    finally:
        await end(process)


async def try_one(name, folder, requests, rate, log):
    *ports, port = free_ports(4)
    workers = [Worker(one, log) for one in ports]
    sender = load.Load(f"127.0.0.1:{port}", rate)
    restarts = 0

    async def roll():
        nonlocal restarts
        while restarts == 0 or sender.number < requests:
            for worker in workers:
                await worker.restart(HANDLER)
                restarts += 1
                # Two looks of the slowest balancer, until it sends to the new worker.
                await asyncio.sleep(2)

    async def break_one():
        await workers[0].restart(["/no/such/handler"])
        await asyncio.sleep(2)
        await workers[0].restart(HANDLER)

    phases = {f"{name}, restarts": roll}
    if name in ASKING:
        phases[f"{name}, broken handler"] = break_one
    try:
        await asyncio.gather(*(worker.start(HANDLER) for worker in workers))
        async with balancer(name, folder, ports, port, log):
            done = await sender.run(phases, requests)
    finally:
        await asyncio.gather(*(end(worker.process) for worker in workers if worker.process))
    is_right = load.report(done)
    print(f"{name}: {restarts} restarts", flush=True)
    return is_right


def try_all(names, options):
    """The names of those behind which something failed."""
    failed = []

    async def one(name):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder)
            with open(path / "log", "wb") as log:
                try:
                    is_right = await try_one(name, path, options.requests, options.rate, log)
                except Wrong as wrong:
                    print(f"{name}: {wrong}", flush=True)
                    is_right = False
            if not is_right:
                failed.append(name)
                print(*(path / "log").read_text().splitlines()[-40:], sep="\n", file=sys.stderr)

    async def together():
        await asyncio.gather(*map(one, names))

    if options.together:
        asyncio.run(together())
    else:
        for name in names:
            asyncio.run(one(name))
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--together", action="store_true")
    parser.add_argument("names", nargs="*", choices=[[], *COMMANDS], metavar="NAME")
    options = parser.parse_args()
    failed = try_all(options.names or list(COMMANDS), options)
    if failed:
        sys.exit(f"balancers.py: failed behind {', '.join(failed)}")


if __name__ == "__main__":
    main()
