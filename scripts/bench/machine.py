"""What was measured on, and which versions. Facts only."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

from servers import ROOT


def output(*command):
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
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
        "processors": len(os.sched_getaffinity(0)),
        "memory_gib": memory_gib(),
        "kernel": platform.release(),
        "load_before": os.getloadavg()[0],
        "versions": versions,
        "interpreter": sys.implementation.name,
    }
