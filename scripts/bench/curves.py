"""The scaling curves: one thing is varied, everything else stays. Points are measured in rounds,
interleaved like the rows."""

import overload
import programs
import servers
from programs import summary

KIB = 1024
# A body may have 8 MiB by default, and the payload is not all of it.
LARGEST = 8 * KIB * KIB - len('{"payload":""}')


def thinned(points, run):
    """In a quick run the first, the last and every third in between."""
    if not run.is_quick:
        return points
    return sorted({points[0], points[-1], *points[::3]})


def measured(run, name, points, series):
    """Each series at each point: `series` maps a name to a function of the point."""
    rounds = {series_name: {point: [] for point in points} for series_name in series}
    for number in run.rounds(name, most=3):
        for point in points:
            for series_name, measure in series.items():
                value = measure(point)
                rounds[series_name][point].append(value)
                run.tell(f"{name}, round {number}", f"{series_name} at {point}: {value:,.4g}")
    curves = {}
    for series_name, by_point in rounds.items():
        curves[series_name] = [
            {"x": point, **summary(values)} for point, values in by_point.items()
        ]
    run.keep_curve(name, curves)


def connections(run):
    """Curve: throughput from 1 to 10,000 connections"""
    points = thinned([1, 4, 16, 64, 256, 1000, 4000, 10000], run)

    def rate(make):
        def measure(point):
            with make() as server:
                # A start with thousands of requests at once takes a while to settle.
                warm_up = run.curve_seconds / 2 + point / 5000
                load = ["--connections", point]
                return programs.load(server, run.curve_seconds, *load, warm_up=warm_up)[
                    "per_second"
                ]

        return measure

    # As many may wait as there are connections, or the largest points would be refusals.
    echo = lambda: servers.worker_echo("--queue", "16384")
    measured(
        run,
        "connections",
        points,
        {"bare hyper": rate(servers.bare_hyper), "faas-worker": rate(echo)},
    )


def processes(run):
    """Curve: throughput with 1 to 256 processes"""
    points = thinned([1, 2, 4, 8, 16, 32, 64, 128, 256], run)

    def echo(point):
        with servers.worker_echo(processes=point) as server:
            return programs.load(server, run.curve_seconds, "--connections", 64)["per_second"]

    def sleeping(point):
        with servers.worker_sleep("10ms", point) as server:
            return programs.load(server, run.curve_seconds, "--connections", max(8, 3 * point))[
                "per_second"
            ]

    measured(run, "processes", points, {"handler of 10 ms": sleeping, "echo": echo})


def payload(run):
    """Curve: bytes a second with payloads of 64 bytes to 8 MiB"""
    points = thinned([64, KIB, 16 * KIB, 64 * KIB, 256 * KIB, KIB * KIB, LARGEST], run)

    def rate(make):
        def measure(point):
            with make() as server:
                load = ["--connections", 8, "--payload-bytes", point]
                return programs.load(server, run.curve_seconds, *load)["per_second"] * point

        return measure

    measured(
        run,
        "payload",
        points,
        {"bare hyper": rate(servers.bare_hyper), "faas-worker": rate(servers.worker_echo)},
    )


HANDLER_PROCESSES = 8


def handler_time(run):
    """Curve: throughput and latency with handlers of 0.1 to 100 ms, against an ideal queue

    Throughput in a closed loop, latency in an open loop at 0.8 of the ideal throughput."""
    points = thinned([0.1, 0.3, 1, 3, 10, 30, 100], run)

    def time(point):
        return f"{round(point * 1000)}us"

    def seconds(point):
        return max(run.curve_seconds, point / 50)

    def ideal(point):
        return HANDLER_PROCESSES * 1000 / point

    def of_ideal(point):
        with servers.worker_sleep(time(point), HANDLER_PROCESSES) as server:
            load = ["--connections", 4 * HANDLER_PROCESSES]
            outcome = programs.load(server, seconds(point), *load)
        return outcome["per_second"] / ideal(point)

    def bare_of_ideal(point):
        command = servers.sleep_command(time(point))
        return programs.turns(HANDLER_PROCESSES, seconds(point), *command) / ideal(point)

    series = {"bare pipes": bare_of_ideal, "faas-worker": of_ideal}
    measured(run, "handler_time", points, series)

    def wait(point):
        with servers.worker_sleep(time(point), HANDLER_PROCESSES) as server:
            rate = 0.8 * ideal(point)
            # A hundredth of the requests must still be several.
            long = max(run.curve_seconds, (400 if run.is_quick else 1500) / rate)
            load = ["--rate", rate, "--connections", 512, "--ideal-servers", HANDLER_PROCESSES]
            return programs.load(server, long, *load, "--ideal-time", time(point))

    slow = [point for point in points if point >= 1]
    outcomes = {point: [] for point in slow}
    for number in run.rounds("waiting", most=3):
        for point in slow:
            outcome = wait(point)
            outcomes[point].append(outcome)
            real, best = (outcome[which]["p99_us"] / 1000 for which in ("ok", "ideal"))
            run.tell(f"waiting, round {number}", f"{point} ms: p99 {real:.2f} ms, ideal {best:.2f} ms")
    run.keep_curve("waiting", [{"x": point, **middle(outcomes[point])} for point in slow])


def middle(outcomes):
    """The round whose p99 is the median; the arrivals, and so the ideal, are the same in each."""
    by_p99 = sorted(outcomes, key=lambda outcome: outcome["ok"]["p99_us"])
    outcome = by_p99[(len(by_p99) - 1) // 2]
    p99s = [other["ok"]["p99_us"] for other in by_p99]
    return {"real": outcome["ok"], "ideal": outcome["ideal"], "late": outcome["late"], "p99s_us": p99s}


def offered_load(run):
    """Curve: from a tenth of the load that can be served to ten times as much"""
    points = thinned([0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.25, 2, 5, 10], run)
    curve = []
    for point in points:
        outcome = overload.measure(1.5 if run.is_quick else 6, point)
        run.tell("offered load", f"{point} × capacity: {outcome['goodput']:.2f} of it served")
        kept = ("goodput", "answered", "ok", "refused", "ideal", "peak_mib")
        health = outcome["probe"]["ok"]
        curve.append({"x": point, "health": health, **{key: outcome[key] for key in kept}})
    run.keep_curve("offered_load", curve)


CURVES = {
    "connections": connections,
    "processes": processes,
    "payload-sizes": payload,
    "handler-time": handler_time,
    "offered-load": offered_load,
}
