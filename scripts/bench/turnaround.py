"""The section `turnaround`: how long a process waits from its reply to its next request, although
requests are waiting. The process measures it itself, so nothing of the load generator is in it."""

import json
import shutil
import statistics

import goals
import programs
import servers
from programs import summary

TIME = "1ms"
PROCESSES = 8
# For each process one that it works on, and several that wait in the queue.
CONNECTIONS = 4 * PROCESSES
FOLDER = servers.WORK / "turnaround"

WAYS = {"order announced": ["--ordered"], "plain loop": []}


def turnaround(run):
    """From a reply to the next request of a process that takes 1 ms for each"""
    rounds = []
    for number in run.rounds("turnaround"):
        each = {}
        for name, options in WAYS.items():
            each[name] = one(run, options)
            run.tell(
                f"turnaround, round {number}",
                f"{name}: {each[name]['p50_us']:.1f} µs, p99 {each[name]['p99_us']:.0f} µs",
            )
        rounds.append(each)
    run.keep("turnaround", rounds)
    return [
        goals.row(
            f"from a reply after {TIME} to the next request, {name}, {which}",
            "",
            summary([each[name][key] for each in rounds]),
            goals.at_least(0),
            "{:.0f} µs",
        )
        for name in WAYS
        for which, key in (("p50", "p50_us"), ("p99", "p99_us"))
    ]


def one(run, options):
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    handler = [servers.BENCH, "turnaround", TIME, "--into", FOLDER, *options]
    name = f"faas-worker, {TIME} handler"
    with servers.worker(handler, name=name, processes=PROCESSES) as server:
        programs.load(server, run.seconds, "--connections", CONNECTIONS)
    written = [json.loads(path.read_text()) for path in FOLDER.iterdir()]
    if len(written) != PROCESSES:
        raise RuntimeError(f"{len(written)} of {PROCESSES} processes have written their figures")
    return {key: statistics.median(each[key] for each in written) for key in ("p50_us", "p99_us")}
