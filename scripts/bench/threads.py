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


def threads(run):
    rounds = []
    for number in run.rounds("threads"):
        each = {}
        # Every other round the other way round: what a first measurement leaves warm counts for both.
        order = counts() if number % 2 else counts()[::-1]
        for count in order:
            processes = servers.default_processes()
            with servers.worker_echo("--threads", count, processes=processes) as server:
                before = server.processor_seconds()
                outcome = programs.pipelined(server, run.seconds)
                spent = server.processor_seconds() - before
            cost = 1e6 * spent / outcome["sent"]
            each[count] = {"rate": outcome["per_second"], "cost": cost}
            run.tell(
                f"threads, round {number}",
                f"{count}: {outcome['per_second']:,.0f}/s, {cost:.1f} µs of processor time each",
            )
            if outcome["processor_share"] > 0.9:
                run.tell(f"threads, round {number}", f"{count}: the load generator is the limit")
        rounds.append(each)
    run.keep("threads", rounds)
    rows = []
    for count in counts()[1:]:
        rates = summary([each[count]["rate"] / each[1]["rate"] for each in rounds])
        costs = summary([each[count]["cost"] / each[1]["cost"] for each in rounds])
        is_two = count == 2
        rows += [
            goals.row(
                f"{count} threads, pipelined load, throughput against 1 thread",
                "≥ 1.25 ×" if is_two else "",
                rates,
                goals.at_least(1.25 if is_two else 0),
                "{:.2f} ×",
            ),
            goals.row(
                f"{count} threads, processor time a request against 1 thread",
                "≤ 1.15 ×" if is_two else "",
                costs,
                goals.at_most(1.15 if is_two else float("inf")),
                "{:.2f} ×",
            ),
        ]
    return rows + hand_over(run)


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
