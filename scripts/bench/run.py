"""Runs what scripts/bench.sh was asked for, keeps every round, and writes what came of it."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time

import comparison
import curves
import examples
import goals
import machine
import servers
import table
import threads
import turnaround

# What a section measures is the first line of its documentation.
SECTIONS = {
    "servers": comparison.compare,
    "languages": examples.languages,
    **goals.SECTIONS,
    "threads": threads.threads,
    "turnaround": turnaround.turnaround,
}
CHARTS = servers.ROOT / "docs" / "charts"


class Run:
    """One run: how long and how often to measure, and everything that was measured."""

    def __init__(self, options):
        self.is_quick = options.quick
        self.rounds_asked = options.rounds
        self.rounds_wanted = options.rounds or (2 if options.quick else 5)
        self.seconds = options.seconds or (0.5 if options.quick else 3)
        self.curve_seconds = min(self.seconds, 0.4 if options.quick else 1.5)
        self.patience = options.patience
        self.begin = time.monotonic()
        self.end = self.begin + 60 * options.minutes
        self.results = {
            "settings": {
                "quick": self.is_quick,
                "only": options.only,
                "rounds": self.rounds_wanted,
                "seconds": self.seconds,
            },
            "machine": machine.facts(),
            "rows": [],
            "rounds": {},
            "curves": {},
            "cut_short": [],
            "failed": [],
        }

    def rounds(self, name, most=None):
        """The numbers of the rounds; the first is always run, the others while there is time."""
        wanted = min(self.rounds_wanted, most or self.rounds_wanted)
        for number in range(1, wanted + 1):
            if number > 1 and time.monotonic() > self.end:
                self.results["cut_short"].append(f"{name}: {number - 1} of {wanted} rounds")
                self.tell(name, "out of time, no more rounds")
                return
            yield number

    def is_over(self):
        return time.monotonic() > self.end

    def tell(self, where, what):
        minutes, seconds = divmod(int(time.monotonic() - self.begin), 60)
        print(f"[{minutes:02}:{seconds:02}] {where}: {what}", file=sys.stderr, flush=True)

    def keep(self, name, rounds):
        self.results["rounds"][name] = rounds

    def keep_curve(self, name, points):
        self.results["curves"][name] = points

    def write(self):
        """After each section, so that an interrupted run leaves what it had."""
        servers.WORK.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.results, indent=1, ensure_ascii=False)
        (servers.WORK / "results.json").write_text(text + "\n")
        (servers.WORK / "table.md").write_text(table.markdown(self.results))


def parse():
    sections = sorted([*SECTIONS, *curves.CURVES])
    parser = argparse.ArgumentParser(
        prog="scripts/bench.sh", description="Measures the worker beside others."
    )
    parser.add_argument(
        "--quick", action="store_true", help="short rounds and few points, under five minutes"
    )
    parser.add_argument(
        "--only", nargs="+", choices=sections, metavar="SECTION", help=f"of {', '.join(sections)}"
    )
    parser.add_argument(
        "--list", action="store_true", help="the sections and what each measures; measures nothing"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        help="of each section (default 5, for servers and languages 3; curves at most 3)",
    )
    parser.add_argument("--seconds", type=float, help="of each measurement (default 3)")
    parser.add_argument(
        "--minutes", type=float, default=24, help="after which no new round begins (default 24)"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=0,
        metavar="SECONDS",
        help="how long servers, languages and throughput wait, before each measurement, for other "
        "work on the machine to end; they measure again where it came back (default 0)",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="put tables and charts into docs/performance.md: those of servers and of languages, "
        "also where --only names just these, and the others after a run of all sections",
    )
    parser.add_argument(
        "--again", action="store_true", help="measure nothing: table and charts of the last results"
    )
    return parser.parse_args()


def measure(options):
    run = Run(options)
    wanted = options.only or [*SECTIONS, *curves.CURVES]
    for name in wanted:
        if run.is_over():
            run.tell(name, "out of time, left out")
            run.results["cut_short"].append(f"{name}: left out")
            continue
        # One that fails costs its own figures only; the exit status tells in the end.
        try:
            if name in SECTIONS:
                run.results["rows"] += SECTIONS[name](run)
            else:
                curves.CURVES[name](run)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            run.tell(name, f"FAILED: {error}")
            run.results["failed"].append(name)
        run.write()
    return run.results


def draw(results):
    if not servers.has("matplotlib"):
        print("no charts: matplotlib is not installed", file=sys.stderr)
        return []
    import charts

    return charts.draw(results, servers.WORK / "charts")


def show_sections():
    for name, section in {**SECTIONS, **curves.CURVES}.items():
        print(f"{name:<18}{section.__doc__.splitlines()[0]}")
    return 0


def main():
    options = parse()
    if options.list:
        return show_sections()
    # Ends in order, so that the servers under test are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if options.again:
        results = json.loads((servers.WORK / "results.json").read_text())
    else:
        results = measure(options)
    made = draw(results)
    text = table.markdown(results)
    (servers.WORK / "table.md").write_text(text)
    print(text)
    if results["cut_short"]:
        print("cut short: " + "; ".join(results["cut_short"]))
    print(f"{servers.WORK}: results.json, table.md, {len(made)} charts")
    if results["failed"]:
        print("failed: " + ", ".join(results["failed"]))
        return 1
    only = results["settings"]["only"]
    if options.publish and only and not set(only) <= set(table.PARTS):
        print("not published: these are results of some sections only")
        return 1
    if options.publish:
        publish(results, made)
    return 0


def publish(results, made):
    """Into the page, between the marks of each part; what was not measured stays as it is."""
    page = servers.ROOT / "docs" / "performance.md"
    text = page.read_text()
    for name, make in table.PARTS.items():
        if name in results:
            text = table.put_into(text, make(results[name]), name)
    if results["rows"]:
        section = table.goals(results)
        section = table.with_charts(section, made, CHARTS.relative_to(page.parent))
        text = table.put_into(text, section, "measured")
        CHARTS.mkdir(exist_ok=True)
        for chart, _ in made:
            shutil.copy(chart, CHARTS)
    page.write_text(text)
    print(f"published in {page.relative_to(servers.ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
