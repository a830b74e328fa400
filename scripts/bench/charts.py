"""Charts of the results, as SVG. Each says in its title what was found."""

from chart_style import (
    BAD,
    INK,
    KIB,
    OTHER,
    OURS,
    THIRD,
    frame,
    line,
    logarithmic,
    names,
    number,
    percentages,
    plt,
    size,
    ticks,
)


def throughput(results):
    rounds = results["rounds"]["throughput"]
    medians = {}
    for name in rounds[0]:
        values = sorted(each[name] for each in rounds)
        medians[name] = (values[len(values) // 2], values[0], values[-1])
    order = sorted(medians, key=lambda name: medians[name][0])
    share = medians["faas-worker, Rust echo"][0] / medians["bare hyper"][0]
    height = 0.46 * len(order) + 1.5
    figure, axes = plt.subplots(figsize=(7.6, height))
    figure.subplots_adjust(left=0.33, right=0.90, top=1 - 0.95 / height, bottom=0.05)
    title = f"A function behind HTTP at {share:.0%} of the bare server's speed"
    figure.text(0.03, 1 - 0.38 / height, title, fontsize=14, fontweight="bold")
    subtitle = "Requests a second, 64 connections, small payload; thin lines: all rounds. Bare pipes: lines"
    figure.text(0.03, 1 - 0.68 / height, subtitle, fontsize=10.5)
    for at, name in enumerate(order):
        median, low, high = medians[name]
        colour = OURS if name.startswith("faas-worker") else OTHER
        axes.barh(at, median, height=0.62, color=colour)
        axes.plot([low, high], [at, at], color=INK, linewidth=1.2)
        place = {"xytext": (6, 0), "textcoords": "offset points", "va": "center"}
        axes.annotate(number(median), (high, at), color=colour, fontweight="bold", **place)
    axes.set_yticks(range(len(order)), order)
    axes.set_xticks([])
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    return figure


def against_bare(axes, curves, show):
    """Two lines, ours and the bare server's."""
    ours, bare = curves["faas-worker"], curves["bare hyper"]
    line(axes, bare, OTHER)
    line(axes, ours, OURS)
    ticks(axes, [point["x"] for point in ours], show)
    return [(bare[-1]["median"], "bare hyper", OTHER), (ours[-1]["median"], "faas-worker", OURS)]


def connections(curves):
    ours = curves["connections"]["faas-worker"]
    share = ours[-1]["median"] / max(point["median"] for point in ours)
    figure, axes = frame(
        f"{ours[-1]['x']:,} busy connections keep {share:.0%} of the best throughput",
        "Requests a second, Rust echo, default number of processes; bands: all rounds",
        "open connections, each with a request at all times",
    )
    labels = against_bare(axes, curves["connections"], number)
    axes.set_ylim(0)
    axes.yaxis.set_major_formatter(number)
    names(axes, ours[-1]["x"], labels)
    return figure


def processes(curves):
    sleeping, echo = curves["processes"]["handler of 10 ms"], curves["processes"]["echo"]
    ideal = [{"x": point["x"], "median": point["x"] * 100} for point in sleeping]
    title = "How throughput grows with processes"
    for point in sleeping:
        if point["median"] < 95 * point["x"]:
            break
        title = f"A handler that waits scales in a line up to {point['x']} processes"
    figure, axes = frame(title, "Requests a second; bands: all rounds", "--processes")
    line(axes, ideal, OTHER, dashed=True)
    line(axes, sleeping, THIRD)
    line(axes, echo, OURS)
    ticks(axes, [point["x"] for point in echo], number)
    logarithmic(axes)
    labels = [
        (ideal[-1]["median"], "ideal for 10 ms", OTHER),
        (sleeping[-1]["median"], "handler of 10 ms", THIRD),
        (echo[-1]["median"], "echo, no work", OURS),
    ]
    names(axes, echo[-1]["x"], labels)
    return figure


def payload(curves):
    def scaled(point):
        return {
            "x": point["x"],
            **{key: point[key] / KIB / KIB for key in ("median", "low", "high")},
        }

    in_mib = {
        name: [scaled(point) for point in points] for name, points in curves["payload"].items()
    }
    ours = in_mib["faas-worker"]
    best = max(point["median"] for point in ours)
    figure, axes = frame(
        f"Up to {best:,.0f} MiB/s go through a process and back",
        "MiB of payload a second, Rust echo, 8 connections; bands: all rounds",
        "bytes of a payload",
    )
    labels = against_bare(axes, in_mib, size)
    logarithmic(axes)
    names(axes, ours[-1]["x"], labels)
    return figure


def handler_time(curves):
    points = curves["handler_time"]["faas-worker"]
    title = "Of the ideal throughput, by handler time"
    for point in reversed(points):
        if point["median"] < 0.95:
            break
        title = f"Handlers of {point['x']:g} ms and more get at least 95% of the ideal"
    subtitle = "Throughput ÷ (processes ÷ handler time), 8 processes, 32 connections; bands: all rounds"
    figure, axes = frame(title, subtitle, "time of a handler for one request, ms")
    bare = curves["handler_time"]["bare pipes"]
    ideal = [{"x": point["x"], "median": 1} for point in points]
    line(axes, ideal, OTHER, dashed=True)
    line(axes, bare, THIRD)
    line(axes, points, OURS)
    ticks(axes, [point["x"] for point in points], number)
    percentages(axes, 1.15)
    labels = [
        (1, "ideal", OTHER),
        (bare[-1]["median"], "bare pipes", THIRD),
        (points[-1]["median"], "faas-worker", OURS),
    ]
    names(axes, points[-1]["x"], labels)
    return figure


def waiting(curves):
    points = curves["waiting"]
    real = [{"x": p["x"], "median": p["real"]["p99_us"] / 1000} for p in points]
    ideal = [{"x": p["x"], "median": p["ideal"]["p99_us"] / 1000} for p in points]
    worst = max(one["median"] / other["median"] for one, other in zip(real, ideal))
    figure, axes = frame(
        f"The p99 of latency is at most {worst:.2f} × an ideal queue's",
        "From due to answered, ms; 8 processes, 80% load, the same random arrivals; median of 3 rounds",
        "time of a handler for one request, ms",
    )
    line(axes, ideal, OTHER, dashed=True)
    line(axes, real, OURS)
    ticks(axes, [point["x"] for point in points], number)
    logarithmic(axes)
    labels = [
        (ideal[-1]["median"], "ideal queue", OTHER),
        (real[-1]["median"], "faas-worker", OURS),
    ]
    names(axes, points[-1]["x"], labels)
    return figure


def offered_load(curves):
    points = curves["offered_load"]
    served = [{"x": p["x"], "median": p["goodput"]} for p in points]
    ideal = [{"x": p["x"], "median": min(p["x"], 1)} for p in points]
    last = points[-1]
    title = (
        f"At {last['x']:g} × what can be served, {last['goodput']:.0%} of capacity is still served"
    )
    subtitle = "Served ÷ capacity; 2 processes of 5 ms, random arrivals"
    figure, axes = frame(title, subtitle, "offered ÷ capacity")
    line(axes, ideal, OTHER, dashed=True)
    line(axes, served, OURS)
    # Where points are close, not all of them have room for their number.
    ticks(axes, [point["x"] for point in points], lambda x: "" if x in (0.9, 1.25) else number(x))
    percentages(axes, 1.15)
    if last["refused"]:
        text = f"the rest is refused\nwithin {last['refused']['p99_us'] / 1000:.1f} ms (p99)"
        axes.text(last["x"], 0.5, text, ha="right", va="center", color=BAD, fontweight="bold")
    labels = [(1, "ideal", OTHER), (last["goodput"], "faas-worker", OURS)]
    names(axes, last["x"], labels)
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
    """Draws what there are results for; gives the files, each with its title."""
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
        files.append((path, figure.texts[0].get_text()))
    return files
