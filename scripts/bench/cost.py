"""What a load does to a server, and what it costs: throughput, times and processor time, from a
moment on at which all of the server's processes have started."""

import json
import time

import machine
import programs

SETTLES_WITHIN = 10

# With patience: shares of all processors that work beside the benchmark may take before a
# measurement, and during it; and how often it is made again at most.
QUIET_BEFORE = 0.1
QUIET_DURING = 0.2
AGAIN_AT_MOST = 2


def measure(server, seconds, connections, patience=0):
    """Figures of one load, after a shorter one that warms the server up. With patience, of the load
    beside which other work took the least."""
    load = ["--connections", connections]
    programs.load(server, min(1.0, seconds / 2), *load, warm_up=0)
    settle(server)
    best = None
    for _ in range(1 + (AGAIN_AT_MOST if patience else 0)):
        was_quiet = wait_for_quiet(patience)
        figures = once(server, seconds, load)
        if best is None or figures["others_share"] < best["others_share"]:
            best = figures
        # Where patience was at an end before, other work is not of the kind that soon ends.
        if best["others_share"] <= QUIET_DURING or not was_quiet:
            break
    return best


def wait_for_quiet(patience):
    """Waits until other work takes little of the processors, for as many seconds at most, and says
    whether it does."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        begin, before = time.monotonic(), machine.busy_seconds()
        time.sleep(0.3)
        busy = (machine.busy_seconds() - before) / (time.monotonic() - begin)
        if busy / machine.processors() < QUIET_BEFORE:
            return True
    return False


def once(server, seconds, load):
    """Figures of one load."""
    all_before, before = machine.busy_seconds(), server.processor_seconds()
    begin = time.monotonic()
    outcome = programs.load(server, seconds, *load, warm_up=0)
    lasted = time.monotonic() - begin
    spent = server.processor_seconds() - before
    everything = machine.busy_seconds() - all_before
    # The counts of the kernel are of hundredths of a second, so the rest may come out below 0.
    others = max(0.0, everything - spent - outcome["processor_share"] * lasted)
    return {
        "per_second": outcome["per_second"],
        "p50_us": outcome["ok"]["p50_us"],
        "p99_us": outcome["ok"]["p99_us"],
        "processor_us": spent / sum(outcome["answered"].values()) * 1e6,
        "others_share": others / lasted / machine.processors(),
    }


def answer(server):
    """The server's answer to the one payload that all servers are asked, as parsed JSON."""
    return json.loads(server.ask()[1])


def settle(server):
    """Waits until the server uses no more processor time: all of its processes have started."""
    end = time.monotonic() + SETTLES_WITHIN
    before, quiet = server.processor_seconds(), 0
    while quiet < 2 and time.monotonic() < end:
        time.sleep(0.1)
        now = server.processor_seconds()
        quiet = quiet + 1 if now - before < 0.015 else 0
        before = now


def others_share(figures):
    """The share of all processors that work beside the benchmark took, over many measurements."""
    return programs.summary([each["others_share"] for each in figures])
