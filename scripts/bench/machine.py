"""What was measured on, and which versions. Facts only."""

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import catalog
from servers import ROOT


def output(*command, with_stderr=False):
    """What a program prints, or None where it fails or is not installed."""
    stderr = subprocess.STDOUT if with_stderr else subprocess.DEVNULL
    try:
        done = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stderr, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def processor():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def memory_gib():
    line = Path("/proc/meminfo").read_text().splitlines()[0]
    return round(int(line.split()[1]) / 1024 / 1024, 1)


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def locked(crate):
    lines = (ROOT / "Cargo.lock").read_text().splitlines()
    at = lines.index(f'name = "{crate}"')
    return lines[at + 1].split('"')[1]


def processors():
    return len(os.sched_getaffinity(0))


def busy_seconds():
    """Processor time of all programs of the machine since it was started, stolen time with it."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, words)
    ticks = user + nice + system + interrupts + soft_interrupts + stolen
    return ticks / os.sysconf("SC_CLK_TCK")


def versions_of_servers():
    """Of what the section `servers` compares, without what is not installed."""
    nginx, fpm = catalog.find("nginx"), catalog.find("php-fpm")
    said = {
        "uWSGI": output(catalog.find("uwsgi") or "uwsgi", "--version"),
        "node": output("node", "--version"),
        "ruby": output("ruby", "--version"),
        "puma": output("puma", "--version"),
        "php": output(fpm or "php-fpm", "--version"),
        # nginx says its version on stderr.
        "nginx": output(nginx or "nginx", "-v", with_stderr=True),
    }
    numbers = {name: number_in(text) for name, text in said.items() if text}
    python = {name: version(name) for name in ("granian", "uvicorn")}
    python = {name: number for name, number in python.items() if number}
    return {"python": platform.python_version(), **python, **numbers, "hyper": locked("hyper")}


def number_in(text):
    """The first version number of what a program says about itself."""
    found = re.search(r"\d+(\.\d+)+", text)
    return found.group() if found else text


def facts():
    versions = {
        name: version(name) for name in ("fastapi", "uvicorn", "uvloop", "httptools", "granian")
    }
    versions = {name: number for name, number in versions.items() if number}
    versions |= {
        "hyper": locked("hyper"),
        "tokio": locked("tokio"),
        "python": platform.python_version(),
    }
    versions["rustc"] = output("rustc", "--version")
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": output("git", "describe", "--always", "--dirty"),
        "processor": processor(),
        "processors": processors(),
        "memory_gib": memory_gib(),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "versions": versions,
        "interpreter": sys.implementation.name,
    }
