"""Ten times more requests than can be served, sent whatever comes back: what is still served, how
fast the rest is refused, whether /health answers, and what memory it takes.

Used by bench.sh for its table; by itself it prints goal and figure and exits with 1 if one is
missed."""

import argparse
import sys

import programs
import servers

PROCESSES = 2
HANDLER_MS = 5
QUEUE = 1024
MAX_CONNECTIONS = 2048
MAX_BUFFERED_MIB = 8
CAPACITY = PROCESSES * 1000 / HANDLER_MS
# Each request that waits has a connection of its own, and so has each that is refused meanwhile.
CONNECTIONS = QUEUE + 512
BACKGROUND = [
    "--queue",
    QUEUE,
    "--max-connections",
    MAX_CONNECTIONS,
    "--max-buffered",
    f"{MAX_BUFFERED_MIB}MiB",
]


# A generator that gets its processor sends within this at the 99th percentile.
LATE_MS = 3


def memory_bound_mib():
    """What the settings allow, by the goals of an idle worker: 8 MiB, 16 KiB a connection, all that
    may be held of bodies and replies, and for each process a read block and a pipe's content twice."""
    return 8 + MAX_CONNECTIONS * 16 / 1024 + MAX_BUFFERED_MIB + PROCESSES * 192 / 1024


def measure(seconds, factor=10):
    """The load at `factor` times the capacity. The queue is filled before it is measured."""
    options = [str(word) for word in BACKGROUND]
    with servers.worker_sleep(f"{HANDLER_MS}ms", PROCESSES, *options) as server:
        return measure_on(server, seconds, factor)


def measure_on(server, seconds, factor):
    load = ["--rate", factor * CAPACITY, "--connections", CONNECTIONS, "--probe", "/health"]
    load += ["--ideal-servers", PROCESSES, "--ideal-time", f"{HANDLER_MS}ms"]
    outcome = programs.load(server, seconds, *load, warm_up=min(2.0, seconds / 2), must_serve=False)
    outcome["goodput"] = outcome["ok_per_second"] / CAPACITY
    outcome["peak_mib"] = server.memory_kib("VmHWM") / 1024
    others = set(outcome["answered"]) - {"200", "429"}
    if others or outcome["broken"] or outcome["unanswered"]:
        raise RuntimeError(f"other answers than 200 and 429: {outcome}")
    return outcome


def milliseconds(latencies, quantile):
    return latencies[quantile] / 1000 if latencies else None


def findings(outcome):
    """Each goal: what, the limit and its unit, the figure, and whether it is met."""
    health = outcome["probe"]
    answered = health["answered"].get("200", 0)
    refused = milliseconds(outcome["refused"], "p99_us")
    bound = memory_bound_mib()
    rows = [
        (
            "accepted requests served, of capacity",
            f"≥ {0.9:.2f}",
            f"{outcome['goodput']:.3f}",
            outcome["goodput"] >= 0.9,
        ),
        (
            "refusals answered, p99",
            "≤ 10 ms",
            f"{refused:.2f} ms" if refused else "none",
            bool(refused) and refused <= 10,
        ),
    ]
    p99 = milliseconds(health["ok"], "p99_us")
    is_well = answered > 0 and not health["broken"] and p99 <= 50
    rows.append(
        ("/health answered, p99", "≤ 50 ms", f"{p99:.2f} ms" if answered else "never", is_well)
    )
    rows.append(
        (
            "peak memory of the worker",
            f"≤ {bound:.0f} MiB",
            f"{outcome['peak_mib']:.1f} MiB",
            outcome["peak_mib"] <= bound,
        )
    )
    return rows


def main():
    parser = argparse.ArgumentParser(prog="scripts/overload.sh", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=60, help="how long to measure (default 60)"
    )
    seconds = parser.parse_args().seconds
    print(
        f"{PROCESSES} processes of {HANDLER_MS} ms serve {CAPACITY:.0f} requests a second; "
        f"sending {10 * CAPACITY:.0f} for {seconds:g} s"
    )
    outcome = measure(seconds)
    answered = outcome["answered"]
    print(f"{answered.get('200', 0)} served, {answered.get('429', 0)} refused\n")
    print(f"{'':40} {'goal':>10} {'figure':>10}")
    rows = findings(outcome)
    for what, goal, figure, is_met in rows:
        print(f"{what:40} {goal:>10} {figure:>10}  {'met' if is_met else 'MISSED'}")
    late = milliseconds(outcome["late"], "p99_us")
    print(
        f"\nrequests were sent late by {late:.2f} ms at the 99th percentile; the latencies include it"
    )
    if late > LATE_MS:
        print("that is much: the machine had other things to do, and the figures tell of those too")
    return 0 if all(row[3] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
