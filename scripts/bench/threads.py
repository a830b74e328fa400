"""What further threads that serve are worth: over HTTP with a cheap load, and without HTTP."""

import os
import re
import subprocess

import goals
import programs
import servers
from programs import summary

# More are more than any default, and the load generator is one thread.
MOST = 8


def counts():
    """Threads that are tried: 1, 2, … up to the processors."""
    processors = len(os.sched_getaffinity(0))
    return list(range(1, max(2, min(processors, MOST)) + 1))


def pipelined(server, seconds):
    """Many requests in each write: requests a second, and how many there were in all."""
    outcome = programs.pipelined(server, seconds)
    return outcome, outcome["sent"]


def unpipelined(server, seconds):
    """One request at a time on each connection."""
    outcome = programs.load(server, seconds, "--connections", 64, warm_up=0)
    return outcome, sum(outcome["answered"].values())


LOADS = {"pipelined": pipelined, "unpipelined": unpipelined}

# What two threads are to reach beside one, by load: throughput, and processor time.
GOALS = {("pipelined", 2): (1.25, 1.15)}


def threads(run):
    """Two threads and more against one, under pipelined and unpipelined load"""
    rounds = []
    for number in run.rounds("threads"):
        # Every other round the other way round: what a first measurement leaves warm counts for both.
        order = counts() if number % 2 else counts()[::-1]
        rounds.append(
            {
                load: {count: one(run, number, load, count) for count in order}
                for load in LOADS
            }
        )
    run.keep("threads", rounds)
    made = [row for load in LOADS for count in counts()[1:] for row in rows(rounds, load, count)]
    return made + hand_over(run)


def one(run, number, load, count):
    """Requests a second, and the processor time of the worker without its processes for each."""
    processes = servers.default_processes()
    with servers.worker_echo("--threads", count, processes=processes) as server:
        before = server.own_processor_seconds()
        outcome, requests = LOADS[load](server, run.seconds)
        spent = server.own_processor_seconds() - before
    cost = 1e6 * spent / requests
    where = f"threads, round {number}"
    rate = f"{outcome['per_second']:,.0f}/s, {cost:.1f} µs of processor time each"
    run.tell(where, f"{load}, {count}: {rate}")
    if outcome["processor_share"] > 0.9:
        run.tell(where, f"{load}, {count}: the load generator is the limit")
    return {"rate": outcome["per_second"], "cost": cost}


def rows(rounds, load, count):
    """Throughput and processor time of so many threads under a load, against one thread."""

    def against_one(figure):
        return summary([each[load][count][figure] / each[load][1][figure] for each in rounds])

    rate, cost = GOALS.get((load, count), (None, None))
    return [
        goals.row(
            f"{count} threads, {load} load, throughput against 1 thread",
            f"≥ {rate:.2f} ×" if rate else "",
            against_one("rate"),
            goals.at_least(rate or 0),
            "{:.2f} ×",
        ),
        goals.row(
            f"{count} threads, {load} load, processor time a request against 1 thread",
            f"≤ {cost:.2f} ×" if cost else "",
            against_one("cost"),
            goals.at_most(cost or float("inf")),
            "{:.2f} ×",
        ),
    ]


def hand_over(run):
    """Calls into the pool without HTTP and without pipes: a measurement of the unit tests."""
    command = ["cargo", "test", "--quiet", "--release", "--locked", "--lib", "--"]
    command += ["--ignored", "--nocapture", "pool::throughput"]
    done = subprocess.run(
        command, cwd=servers.ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    found = [float(ratio) for ratio in re.findall(r"ratio (\d+\.\d+)\n", done.stdout)]
    # The last one is the median of the others.
    figures = summary(found[:-1])
    run.tell("threads", f"calls into the pool, 2 threads against 1: {figures['median']:.2f}")
    run.keep("hand-over", found[:-1])
    what = "calls into the pool without HTTP, 2 threads against 1"
    return [goals.row(what, "≥ 1.6 ×", figures, goals.at_least(1.6), "{:.2f} ×")]
