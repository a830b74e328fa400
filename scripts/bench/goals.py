"""The goals: each section measures in rounds, contender after contender within a round, and makes
rows of goal and figure out of it."""

import http.client
import json
import struct

import cost
import overload
import programs
import servers
from programs import summary

MIB = 1024 * 1024


def row(what, goal, figures, is_met, show="{:.2f}", note=""):
    """One line of the table; `figures` is a summary, or a single number."""
    if not isinstance(figures, dict):
        figures = {"median": figures, "low": figures, "high": figures, "rounds": [figures]}
    texts = {key: show.format(figures[key]) for key in ("median", "low", "high")}
    return {
        "what": what,
        "goal": goal,
        "is_met": bool(is_met(figures["median"])),
        "texts": texts,
        "note": note,
        **figures,
    }


def at_least(limit):
    return lambda figure: figure >= limit


def at_most(limit):
    return lambda figure: figure <= limit


def ratios(rounds, one, other):
    return summary([each[one] / each[other] for each in rounds if one in each and other in each])


BARE_SH = "sh loops over bare pipes"


def throughput(run):
    """The worker, bare hyper and Python servers under 64 connections, and their processor time"""
    makers = [servers.bare_hyper, servers.worker_echo, servers.worker_sh, servers.worker_python]
    makers += servers.python_contenders() + servers.other_contenders()
    rounds, costs = [], []
    for number in run.rounds("throughput"):
        each, spent = {}, {}
        for make in makers:
            with make() as server:
                outcome = cost.measure(server, run.seconds, 64, run.patience)
            each[server.name] = outcome["per_second"]
            spent[server.name] = outcome["processor_us"]
            run.tell(
                f"throughput, round {number}",
                f"{server.name}: {outcome['per_second']:,.0f}/s, "
                f"{outcome['processor_us']:.1f} µs of processor time a request",
            )
        each[BARE_SH] = programs.turns(servers.SH_PROCESSES, run.seconds, servers.SH_LOOP)
        run.tell(f"throughput, round {number}", f"{BARE_SH}: {each[BARE_SH]:,.0f}/s")
        rounds.append(each)
        costs.append(spent)
    run.keep("throughput", rounds)
    run.keep("throughput_cost", costs)
    return throughput_rows(rounds, costs)


def throughput_rows(rounds, costs):
    bare, python = "bare hyper", "faas-worker, Python function"
    rows = [
        row(
            "64 connections, Rust echo, default settings, against bare hyper",
            "≥ 0.90 ×",
            ratios(rounds, "faas-worker, Rust echo", bare),
            at_least(0.9),
            "{:.2f} ×",
        ),
        *cost_rows(costs, "faas-worker, Rust echo", bare),
        row(
            "64 connections, sh loop without ids, 2 processes, against bare hyper",
            "≥ 0.45 ×",
            ratios(rounds, "faas-worker, sh without ids", bare),
            at_least(0.45),
            "{:.2f} ×",
        ),
        row(
            "the same processes over bare pipes, without a worker and HTTP, against bare hyper",
            "",
            ratios(rounds, BARE_SH, bare),
            at_least(0),
            "{:.2f} ×",
        ),
    ]
    bounds = (bare, BARE_SH)
    others = [name for name in rounds[0] if not name.startswith("faas-worker") and name not in bounds]
    limits = {"FastAPI on uvicorn": 8.0, "of-watchdog, HTTP mode": 8.0}
    for name in others:
        ours = "faas-worker, Rust echo" if name.startswith("of-") else python
        limit = limits.get(name, 1.3)
        what = "Rust echo" if ours != python else "a Python function"
        rows.append(
            row(
                f"{what}, against {name}",
                f"≥ {limit:.1f} ×",
                ratios(rounds, ours, name),
                at_least(limit),
                "{:.1f} ×",
            )
        )
    return rows


def cost_rows(costs, ours, bare):
    """Processor time of a request: of the bare server, of the worker with its processes, and how
    many times as much that is."""
    microseconds = lambda name: summary([each[name] for each in costs])
    always = at_least(0)
    return [
        row("processor time of a request, bare hyper", "", microseconds(bare), always, "{:.1f} µs"),
        row(
            "the same, the worker and its processes (Rust echo)",
            "",
            microseconds(ours),
            always,
            "{:.1f} µs",
        ),
        row(
            "the same, the worker and its processes against bare hyper",
            "",
            ratios(costs, ours, bare),
            always,
            "{:.2f} ×",
        ),
    ]


def latency(run):
    """One connection, one request at a time: the time that the way through a process adds"""
    rounds = []
    for number in run.rounds("latency"):
        each = {}
        for make in (servers.bare_hyper, servers.worker_echo):
            with make() as server:
                outcome = programs.load(server, run.seconds, "--connections", 1)
            each[server.name] = outcome["ok"]["p50_us"]
            run.tell(
                f"latency, round {number}",
                f"{server.name}: {outcome['ok']['p50_us']:.1f} µs at the median",
            )
        rounds.append(each)
    run.keep("latency", rounds)
    added = summary([each["faas-worker, Rust echo"] - each["bare hyper"] for each in rounds])
    return [row("added latency, 1 connection, p50", "≤ 30 µs", added, at_most(30), "{:.0f} µs")]


def start(run):
    """From the start of the worker to its first answer"""
    figures = programs.first_answers(servers.worker_echo(), 5 if run.is_quick else 30)
    run.tell("start", f"first 200 after {min(figures):.1f} to {max(figures):.1f} ms")
    run.keep("start", figures)
    return [
        row(
            "start of the worker to the first 200",
            "≤ 10 ms",
            summary(figures),
            at_most(10),
            "{:.1f} ms",
        )
    ]


def memory(run):
    """Memory of the worker, idle and for each open connection"""
    count = 200 if run.is_quick else 1000
    with servers.worker_echo(processes=4) as server:
        idle = server.memory_kib("VmRSS")
        connections = []
        for _ in range(count):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            body = json.dumps({"payload": servers.PAYLOAD})
            connection.request("POST", "/", body, {"content-type": "application/json"})
            connection.getresponse().read()
            connections.append(connection)
        each = (server.memory_kib("VmRSS") - idle) / count
        for connection in connections:
            connection.close()
    run.tell("memory", f"{idle / 1024:.1f} MiB idle, {each:.1f} KiB more a connection")
    run.keep("memory", {"idle_kib": idle, "connections": count, "kib_a_connection": each})
    return [
        row("resident memory, idle, 4 processes", "≤ 8 MiB", idle / 1024, at_most(8), "{:.1f} MiB"),
        row(
            "resident memory, for each open connection", "≤ 16 KiB", each, at_most(16), "{:.1f} KiB"
        ),
    ]


def many_connections(run):
    """64 active connections alone, and beside thousands that are open"""
    idle = 936 if run.is_quick else 9936
    rounds = []
    for number in run.rounds("many-connections"):
        each = {}
        for name, more in (("64 open", 0), (f"{idle + 64} open", idle)):
            with servers.worker_echo() as server:
                outcome = programs.load(server, run.seconds, "--connections", 64, "--idle", more)
            each["many" if more else "few"] = outcome["per_second"]
            run.tell(
                f"many connections, round {number}",
                f"{name}, 64 active: {outcome['per_second']:,.0f}/s",
            )
        rounds.append(each)
    run.keep("many_connections", rounds)
    what = f"{idle + 64:,} open connections, 64 active, against 64 open"
    return [row(what, "≥ 0.80 ×", ratios(rounds, "many", "few"), at_least(0.8), "{:.2f} ×")]


def overloaded(run):
    """Ten times the load that can be served"""
    outcome = overload.measure(3 if run.is_quick else 20)
    run.tell("overload", f"{outcome['goodput']:.2f} of capacity served")
    run.keep("overload", outcome)
    rows = []
    for what, goal, figure, is_met in overload.findings(outcome):
        texts = {"median": figure, "low": figure, "high": figure}
        rows.append(
            {
                "what": f"10 × overload: {what}",
                "goal": goal,
                "is_met": is_met,
                "texts": texts,
                "note": "",
            }
        )
    return rows


def payloads(run):
    """1 MiB through a process and back, against bare pipes"""
    rounds = []
    size = ["--payload-bytes", MIB]
    for number in run.rounds("payload"):
        each = {
            "one pipe pair": programs.pipes(1, MIB, run.seconds),
            "two pipe pairs": programs.pipes(2, MIB, run.seconds),
        }
        with servers.worker_echo(processes=2) as server:
            each["two processes"] = (
                programs.load(server, run.seconds, *size, "--connections", 4)["per_second"] * MIB
            )
        with servers.worker_echo(processes=1) as server:
            each["one process"] = (
                programs.load(server, run.seconds, *size, "--connections", 1)["per_second"] * MIB
            )
        shown = ", ".join(f"{name} {value / MIB:,.0f} MiB/s" for name, value in each.items())
        run.tell(f"payload of 1 MiB, round {number}", shown)
        rounds.append(each)
    run.keep("payload_1mib", rounds)
    return [
        row(
            "1 MiB payloads, 4 connections, 2 processes, bytes/s against one bare pipe round trip",
            "≥ 0.50 ×",
            ratios(rounds, "two processes", "one pipe pair"),
            at_least(0.5),
            "{:.2f} ×",
        ),
        row(
            "the same against two round trips at a time",
            "",
            ratios(rounds, "two processes", "two pipe pairs"),
            at_least(0),
            "{:.2f} ×",
        ),
        row(
            "1 MiB payloads, 1 connection, 1 process, against one round trip",
            "",
            ratios(rounds, "one process", "one pipe pair"),
            at_least(0),
            "{:.2f} ×",
        ),
    ]


def binary(run):
    """Size of the static binary, and whether it needs anything else to run"""
    path = servers.WORK / "static" / "faas-worker"
    if not path.exists():
        run.tell("binary", "no static build: left out")
        return []
    size = path.stat().st_size / MIB
    is_static = not needs_interpreter(path.read_bytes())
    run.tell("binary", f"{size:.1f} MiB, {'static' if is_static else 'NOT static'}")
    run.keep("binary", {"mib": size, "is_static": is_static})
    return [
        row(
            "binary, one static file",
            "≤ 8 MiB",
            size,
            lambda figure: figure <= 8 and is_static,
            "{:.1f} MiB",
        )
    ]


def needs_interpreter(elf):
    """Whether an ELF file of 64 bits, little-endian, names a dynamic loader (PT_INTERP)."""
    begin, size, count = (struct.unpack_from("<Q", elf, 32)[0], *struct.unpack_from("<HH", elf, 54))
    return any(
        struct.unpack_from("<I", elf, begin + index * size)[0] == 3 for index in range(count)
    )


SECTIONS = {
    "throughput": throughput,
    "latency": latency,
    "start": start,
    "memory": memory,
    "many-connections": many_connections,
    "overload": overloaded,
    "payload": payloads,
    "binary": binary,
}
