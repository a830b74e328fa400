#!/usr/bin/env python3
"""Attacks a worker in a memory control group, for scripts/check/memory.sh, which makes the group.

Starts one worker for each attack of attacks.py, and one for all at once; asks for /health all the
while, and looks at the group's memory and the worker's. Exits with 1 if a worker died, /health
failed or was late, or memory did not go back.
"""

import argparse
import multiprocessing
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time

import attacks
from attacks import KIB, MIB

# Memory goes back to so many times of what it was, within so many seconds.
GIVEN_BACK, SETTLES_SECONDS = 1.5, 10
WARM_UP_REQUESTS = 200
LONGEST_HEALTH = 5.0

HANDLER = r"""
printf '%s\n' '{"ready":true,"concurrency":1}'
while IFS= read -r line; do
    id=${line#'{"id":'}
    id=${id%%,*}
    case $line in
        *'"payload":"big"'*) printf '{"id":%s,"result":"' "$id"; cat "$1"; printf '"}\n' ;;
        *'"payload":"error"'*) printf '{"id":%s,"error":"' "$id"; cat "$1"; printf '"}\n' ;;
        *'"payload":"stray"'*) cat "$1"; printf '\n{"id":%s,"result":1}\n' "$id" ;;
        *'"payload":"flood"'*) tr a '\n' <"$1" >&2; printf '{"id":%s,"result":1}\n' "$id" ;;
        *'"payload":"slow"'*) sleep 0.2; printf '{"id":%s,"result":1}\n' "$id" ;;
        *) printf '{"id":%s,"result":1}\n' "$id" ;;
    esac
done
"""

SETTINGS = {
    "defaults": (attacks.Settings(8 * MIB, 4 * MIB), ["--processes", "2"], {}),
    "compose": (attacks.Settings(MIB, MIB - KIB), [], {
        "FAAS_MAX_BUFFERED": "32MiB", "FAAS_MAX_BODY": "1MiB", "FAAS_MAX_REPLY": "1MiB",
        "FAAS_PROCESSES": "4"}),
}


class Group:
    """The control group, of either version."""

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.is_first = (self.path / "memory.limit_in_bytes").exists()

    def read(self, name):
        return (self.path / name).read_text(encoding="utf-8")

    def used(self):
        return int(self.read("memory.usage_in_bytes" if self.is_first else "memory.current"))

    def kills(self):
        text = self.read("memory.oom_control" if self.is_first else "memory.events")
        found = re.search(r"^oom_kill (\d+)", text, re.M)
        return int(found.group(1)) if found else 0

    def kill_all(self):
        for _ in range(100):
            pids = self.read("cgroup.procs").split()
            if not pids:
                return
            for pid in pids:
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)


class Worker:
    """A worker in the group."""

    def __init__(self, program, group, name, folder, log):
        self.settings, options, environment = SETTINGS[name]
        big = folder / f"big-{name}"
        big.write_bytes(b"a" * (self.settings.reply - 100))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = free.getsockname()
        words = [program, "--port", str(self.address[1]), "--pass-header", "x-key", *options,
                 "--", "sh", "-c", HANDLER, "sh", str(big)]
        enter = f'echo $$ >{group.path}/cgroup.procs; exec "$@"'
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FAAS_")}
        self.process = subprocess.Popen(
            ["sh", "-c", enter, "sh", *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**kept, **environment})

    def ask(self, request, timeout):
        """The status of one answer, on a connection of its own."""
        with socket.create_connection(self.address, timeout) as connection:
            connection.settimeout(timeout)
            connection.sendall(request)
            answer = connection.recv(64 * KIB)
        return int(answer.split()[1]) if answer else 0

    def answers(self, seconds):
        """Whether a request is answered with 200 within that time."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.ask(attacks.post(attacks.payload(b"x")), 5) == 200:
                    return True
            except OSError:
                pass
            time.sleep(0.1)
        return False

    def resident(self):
        """In bytes; 0 when it is gone."""
        try:
            text = pathlib.Path(f"/proc/{self.process.pid}/statm").read_text(encoding="utf-8")
            return int(text.split()[1]) * resource.getpagesize()
        except (OSError, IndexError):
            return 0

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def attack_aside(address, attack, seconds):
    os.nice(10)
    attacks.keep_up(address, attack, seconds)


def watch(worker, group, seconds):
    """Asks for /health until the time is over or the worker is gone."""
    took, failed, most_used, most_resident = [], [], 0, 0
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end and worker.process.poll() is None:
        try:
            request = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
            status = worker.ask(request, LONGEST_HEALTH)
            if status != 200:
                failed.append(status)
        except OSError as error:
            failed.append(error)
        took.append(time.monotonic() - begun)
        most_used = max(most_used, group.used())
        most_resident = max(most_resident, worker.resident())
        time.sleep(0.01)
    return sorted(took), failed, most_used, most_resident


def given_back(worker, before):
    """The resident bytes once they are few enough, or when the time is over."""
    end = time.monotonic() + SETTLES_SECONDS
    while (now := worker.resident()) > GIVEN_BACK * before and time.monotonic() < end:
        time.sleep(0.1)
    return now


def trial(title, chosen, seconds, name, options, group, folder):
    """One worker under some attacks; prints a line, and gives what does not hold."""
    kills_before = group.kills()
    log = open(folder / "log", "wb")
    worker = Worker(options.worker, group, name, folder, log)
    wrong = []
    for _ in range(WARM_UP_REQUESTS):
        if not worker.answers(20):
            wrong.append("never answered")
            break
    before = worker.resident()
    sides = [multiprocessing.Process(target=attack_aside, args=(worker.address, each, seconds))
             for each in chosen]
    for side in sides:
        side.start()
    took, failed, used, resident = watch(worker, group, seconds)
    for side in sides:
        side.terminate()
        side.join()
    after = given_back(worker, before)
    status = worker.process.poll()
    p50, p99 = (took[int(len(took) * q)] * 1e3 if took else 0.0 for q in (0.5, 0.99))
    if status is not None:
        wrong.append(f"the worker ended: {status}")
    else:
        if failed:
            wrong.append(f"/health failed {len(failed)} times of {len(took)}: {failed[0]!r}")
        if p99 > options.p99:
            wrong.append(f"/health p99 {p99:.0f} ms")
        if not worker.answers(10):
            wrong.append("no answer after it")
        if after > GIVEN_BACK * before:
            wrong.append(f"memory {before / MIB:.1f} -> {after / MIB:.1f} MiB")
    worker.stop()
    log.close()
    group.kill_all()
    killed = group.kills() - kills_before
    print(f"{name:<9}{title:<30}group {used / MIB:6.1f} MiB, worker {before / MIB:4.1f} ->"
          f" {resident / MIB:5.1f} -> {after / MIB:4.1f} MiB, killed {killed}; /health"
          f" p50 {p50:5.1f} p99 {p99:6.1f} max {(took or [0])[-1] * 1e3:6.1f} ms"
          f" of {len(took)}; {'WRONG: ' + ', '.join(wrong) if wrong else 'holds'}", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--each", type=float, default=4)
    parser.add_argument("--settings", choices=SETTINGS, action="append")
    parser.add_argument("--attack", action="append", default=[])
    parser.add_argument("--p99", type=float, default=50)
    options = parser.parse_args()
    group, count, missed = Group(options.group), 0, 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for name in options.settings or SETTINGS:
            rows = attacks.table(SETTINGS[name][0])
            unknown = [each for each in options.attack if each not in rows]
            if unknown:
                sys.exit(f"memory.py: no attack {unknown}: there are {', '.join(rows)}")
            rows = {k: rows[k] for k in options.attack or rows}
            trials = [(k, [v], options.each) for k, v in rows.items() if options.each]
            if options.seconds:
                trials.append(("all at once", list(rows.values()), options.seconds))
            for title, chosen, seconds in trials:
                count += 1
                missed += bool(trial(title, chosen, seconds, name, options, group, folder))
    print(f"{count - missed} held, {missed} did not")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
