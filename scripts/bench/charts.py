"""Charts of the results, as SVG. Each says in its title what it shows, and names its lines where
they end. Colours are of middle lightness on no background, for light pages and dark ones."""

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, NullLocator  # noqa: E402

INK = "#76808b"
FAINT = "#76808b40"
OURS, OTHER, THIRD, BAD = "#2f7fe0", "#8a8f98", "#d9822b", "#d64545"
KIB = 1024

plt.rcParams.update(
    {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica", "Arial", "DejaVu Sans"],
        "font.size": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": FAINT,
        "axes.axisbelow": True,
        "svg.hashsalt": "faas-worker",
    }
)


def number(value, _=None):
    """1500 as 1.5k: short enough for an axis."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def size(value):
    for unit, letter in ((KIB * KIB, "MiB"), (KIB, "KiB")):
        if value >= unit * 0.99:
            return f"{round(value / unit):g} {letter}"
    return f"{value:g} B"


def frame(title, subtitle, x_label):
    figure, axes = plt.subplots(figsize=(7.6, 4.3))
    figure.subplots_adjust(left=0.09, right=0.80, top=0.80, bottom=0.13)
    figure.text(0.03, 0.93, title, fontsize=14, fontweight="bold")
    figure.text(0.03, 0.865, subtitle, fontsize=10.5)
    axes.set_xlabel(x_label)
    axes.tick_params(length=0)
    return figure, axes


def ticks(axes, points, show):
    """The measured points, and nothing else, on a logarithmic axis."""
    axes.set_xscale("log")
    axes.set_xticks(points, [show(point) for point in points])
    axes.xaxis.set_minor_locator(NullLocator())


def line(axes, points, colour, label, dashed=False, nudge=0):
    x = [point["x"] for point in points]
    y = [point["median"] for point in points]
    style = {"linestyle": (0, (4, 3)), "linewidth": 1.6} if dashed else {"linewidth": 2.4, "marker": "o", "markersize": 4.5}
    axes.plot(x, y, color=colour, **style)
    if "low" in points[0]:
        axes.fill_between(x, [p["low"] for p in points], [p["high"] for p in points], color=colour, alpha=0.18, linewidth=0)
    axes.annotate(label, (x[-1], y[-1]), xytext=(8, nudge), textcoords="offset points", color=colour, va="center", fontweight="bold")


def apart(ends):
    """How far to move labels, in points, so that lines which end close together stay readable."""
    low, high = min(ends), max(ends)
    return (0, 0) if low <= 0 or high / low > 1.25 else (9, -9)


def throughput(results):
    rounds = results["rounds"]["throughput"]
    medians = {}
    for name in rounds[0]:
        values = sorted(each[name] for each in rounds)
        medians[name] = (values[len(values) // 2], values[0], values[-1])
    names = sorted(medians, key=lambda name: medians[name][0])
    share = medians["faas-worker, Rust echo"][0] / medians["bare hyper"][0]
    figure, axes = plt.subplots(figsize=(7.6, 0.46 * len(names) + 1.5))
    top = 1 - 0.95 / (0.46 * len(names) + 1.5)
    figure.subplots_adjust(left=0.33, right=0.90, top=top, bottom=0.05)
    figure.text(0.03, 1 - 0.38 / (0.46 * len(names) + 1.5), f"A function behind HTTP at {share:.0%} of the bare server's speed", fontsize=14, fontweight="bold")
    figure.text(0.03, 1 - 0.68 / (0.46 * len(names) + 1.5), "Requests a second, 64 connections, small payload; thin lines: all rounds", fontsize=10.5)
    for at, name in enumerate(names):
        median, low, high = medians[name]
        colour = OURS if name.startswith("faas-worker") else OTHER
        axes.barh(at, median, height=0.62, color=colour)
        axes.plot([low, high], [at, at], color=INK, linewidth=1.2)
        axes.annotate(number(median), (max(high, median), at), xytext=(6, 0), textcoords="offset points", va="center", color=colour, fontweight="bold")
    axes.set_yticks(range(len(names)), names)
    axes.set_xticks([])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    return figure


def connections(curves):
    ours, bare = curves["connections"]["faas-worker"], curves["connections"]["bare hyper"]
    share = ours[-1]["median"] / max(point["median"] for point in ours)
    figure, axes = frame(
        f"{ours[-1]['x']:,} busy connections keep {share:.0%} of the best throughput",
        "Requests a second, Rust echo, default number of processes; bands: all rounds",
        "open connections, each with a request at all times",
    )
    above, below = apart([ours[-1]["median"], bare[-1]["median"]])
    line(axes, bare, OTHER, "bare hyper", nudge=above)
    line(axes, ours, OURS, "faas-worker", nudge=below)
    ticks(axes, [point["x"] for point in ours], number)
    axes.set_ylim(0)
    axes.yaxis.set_major_formatter(FuncFormatter(number))
    return figure


def processes(curves):
    sleeping, echo = curves["processes"]["handler of 10 ms"], curves["processes"]["echo"]
    ideal = [{"x": point["x"], "median": point["x"] * 100} for point in sleeping]
    reached = [point["x"] for point in sleeping if point["median"] >= 95 * point["x"]]
    title = f"A waiting handler scales in a line up to {max(reached)} processes" if reached else "How throughput grows with processes"
    figure, axes = frame(title, "Requests a second against --processes; bands: all rounds", "processes")
    line(axes, ideal, OTHER, "ideal for 10 ms", dashed=True, nudge=9)
    line(axes, sleeping, THIRD, "handler of 10 ms", nudge=-9 if sleeping[-1]["median"] > ideal[-1]["median"] / 1.5 else 0)
    line(axes, echo, OURS, "echo, no work")
    ticks(axes, [point["x"] for point in echo], number)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(number))
    axes.yaxis.set_minor_locator(NullLocator())
    return figure


def payload(curves):
    scaled = {
        name: [{"x": p["x"], **{key: p[key] / KIB / KIB for key in ("median", "low", "high")}} for p in points]
        for name, points in curves["payload"].items()
    }
    ours, bare = scaled["faas-worker"], scaled["bare hyper"]
    best = max(ours, key=lambda point: point["median"])
    figure, axes = frame(
        f"Up to {best['median']:,.0f} MiB/s go through a process and back",
        "MiB of payload a second, Rust echo, 8 connections; bands: all rounds",
        "size of a payload",
    )
    above, below = apart([ours[-1]["median"], bare[-1]["median"]])
    line(axes, bare, OTHER, "bare hyper", nudge=above)
    line(axes, ours, OURS, "faas-worker", nudge=below)
    ticks(axes, [point["x"] for point in ours], size)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(number))
    return figure


def handler_time(curves):
    points = curves["handler_time"]["faas-worker"]
    enough = [point["x"] for point in points if point["median"] >= 0.95]
    title = f"Handlers of {min(enough):g} ms and more get at least 95 % of the ideal" if enough else "Of the ideal throughput, by handler time"
    figure, axes = frame(title, "Throughput ÷ (processes ÷ handler time), 8 processes, 32 connections", "time of a handler for one request, ms")
    line(axes, points, OURS, "faas-worker")
    axes.axhline(1, color=OTHER, linestyle=(0, (4, 3)), linewidth=1.6)
    axes.annotate("ideal", (points[-1]["x"], 1), xytext=(8, 9), textcoords="offset points", color=OTHER, va="center", fontweight="bold")
    ticks(axes, [point["x"] for point in points], number)
    axes.set_ylim(0, 1.12)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    return figure


def waiting(curves):
    points = curves["waiting"]
    real = [{"x": p["x"], "median": p["real"]["p99_us"] / 1000} for p in points]
    ideal = [{"x": p["x"], "median": p["ideal"]["p99_us"] / 1000} for p in points]
    worst = max(real[i]["median"] / ideal[i]["median"] for i in range(len(real)))
    figure, axes = frame(
        f"The slowest hundredth waits at most {worst:.2f} × as long as in an ideal queue",
        "p99 from due to answered, ms; 8 processes at 80 % load, random arrivals, first in, first out",
        "time of a handler for one request, ms",
    )
    line(axes, ideal, OTHER, "ideal queue", dashed=True, nudge=-9)
    line(axes, real, OURS, "faas-worker", nudge=9)
    ticks(axes, [point["x"] for point in points], number)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(number))
    axes.yaxis.set_minor_locator(NullLocator())
    return figure


def offered_load(curves):
    points = curves["offered_load"]
    served = [{"x": p["x"], "median": p["goodput"]} for p in points]
    refused = [{"x": p["x"], "median": p["refused"]["p99_us"] / 1000} for p in points if p["refused"]]
    title = f"At {points[-1]['x']:g} × what can be served, {served[-1]['median']:.0%} of capacity is still served"
    figure, axes = frame(title, "Served ÷ capacity; 2 processes of 5 ms, random arrivals", "offered ÷ capacity")
    line(axes, served, OURS, "served")
    x = [point["x"] for point in points]
    axes.plot(x, [min(value, 1) for value in x], color=OTHER, linestyle=(0, (4, 3)), linewidth=1.6)
    axes.annotate("ideal", (x[-1], 1), xytext=(8, 9), textcoords="offset points", color=OTHER, va="center", fontweight="bold")
    if refused:
        last = refused[-1]
        axes.annotate(
            f"refused in {last['median']:.1f} ms (p99)", (last["x"], 0.55), xytext=(0, 0), textcoords="offset points",
            ha="right", color=BAD, fontweight="bold",
        )
    ticks(axes, x, number)
    axes.set_ylim(0, 1.15)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    return figure


CURVES = {
    "connections": connections,
    "processes": processes,
    "payload": payload,
    "handler_time": handler_time,
    "waiting": waiting,
    "offered_load": offered_load,
}


def draw(results, folder):
    """Draws what there are results for; gives the files."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = {}
    if "throughput" in results["rounds"]:
        figures["throughput"] = throughput(results)
    for name, make in CURVES.items():
        if name in results["curves"]:
            figures[name] = make(results["curves"])
    files = []
    for name, figure in figures.items():
        path = folder / f"{name.replace('_', '-')}.svg"
        # No date in it: the same figures give the same file.
        figure.savefig(path, transparent=True, metadata={"Date": None})
        plt.close(figure)
        files.append(path)
    return files
