"""Runs the measuring programs and reads what they print. Every figure comes from here."""

import json
import statistics
import subprocess

from servers import BENCH


def _run(*words):
    done = subprocess.run(
        [str(word) for word in (BENCH, *words)], stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def load(server, seconds, *options, warm_up=None, must_serve=True):
    """A load on a server. With `must_serve`, anything but a 200 is a failure of the measurement."""
    warm_up = min(1.0, seconds / 2) if warm_up is None else warm_up
    times = ["--duration", f"{round(seconds * 1000)}ms", "--warm-up", f"{round(warm_up * 1000)}ms"]
    outcome = _run("load", "--address", server.address, *times, *options)
    if not outcome["answered"]:
        # A stall of the machine took all of a short measurement.
        outcome = _run("load", "--address", server.address, "--duration", "5s", *options)
    is_clean = (
        set(outcome["answered"]) == {"200"} and not outcome["broken"] and not outcome["unanswered"]
    )
    if outcome["wrong"] or (must_serve and not is_clean):
        raise RuntimeError(f"{server.name} answered wrongly: {json.dumps(outcome)[:1000]}")
    if outcome["processor_share"] > 0.9:
        outcome["warning"] = "the load generator had no processor time to spare"
    return outcome


def pipelined(server, seconds):
    """Requests a second under a load of many requests in each write; `sent` has the warm-up too."""
    return _run(
        "pipelined", "--address", server.address, "--duration", f"{round(seconds * 1000)}ms"
    )


def pipes(pairs, size, seconds):
    return _run(
        "pipes", "--pairs", pairs, "--bytes", size, "--duration", f"{round(seconds * 1000)}ms"
    )["bytes_per_second"]


def turns(processes, seconds, *command):
    """Lines a second through processes that take one at a time, over bare pipes."""
    times = ["--duration", f"{round(seconds * 1000)}ms"]
    return _run("turns", "--processes", processes, *times, "--", *command)["per_second"]


def first_answers(server, starts):
    """Milliseconds from the start of each to its first 200. The server must not be running."""
    return _run(
        "first-answer", "--address", server.address, "--starts", starts, "--", *server.command
    )["milliseconds"]


def summary(values):
    """Median and spread of all rounds, with the rounds."""
    return {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "rounds": values,
    }
