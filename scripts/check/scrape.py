"""What scrapes cost a worker: see scrape.sh."""

import argparse
import contextlib
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

RELEASE = Path(__file__).resolve().parents[2] / "target" / "release"
SCRAPES = 1000
PERIOD = 0.1
MOST_MS = 5
MOST_RATIO = 1.5


@contextlib.contextmanager
def worker():
    """A worker that serves; gives its pid and port."""
    command = [RELEASE / "faas-worker", "--port", "0", "--processes", "2", "--log-format", "json"]
    command += ["--", RELEASE / "examples" / "echo"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FAAS_")}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)
    try:
        listening = json.loads(process.stderr.readline())
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield process.pid, int(listening["address"].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(30)


def processor_ms(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return ticks * 1000 / os.sysconf("SC_CLK_TCK")


class Scraper:
    """Scrapes on one connection, as Prometheus does."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def scrape(self):
        """One scrape; gives how long it took, in milliseconds."""
        begun = time.perf_counter()
        self.connection.request("GET", "/metrics")
        answer = self.connection.getresponse()
        assert answer.status == 200 and b"faas_requests_total" in answer.read()
        return (time.perf_counter() - begun) * 1000


def load(port, scraper):
    """Loads the worker for two seconds, scraped all the while if there is a scraper."""
    command = [RELEASE / "examples" / "bench", "load", "--address", f"127.0.0.1:{port}"]
    command += ["--connections", "64", "--duration", "2s"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    took = []
    while scraper and process.poll() is None:
        took.append(scraper.scrape())
        time.sleep(PERIOD)
    outcome = json.loads(process.communicate()[0])
    assert outcome["wrong"] == outcome["broken"] == outcome["unanswered"] == 0, outcome
    return outcome["ok"], outcome["ok_per_second"], took


def main():
    parser = argparse.ArgumentParser(prog="scripts/check/scrape.sh", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each kind")
    options = parser.parse_args()
    with worker() as (pid, port):
        scraper = Scraper(port)
        load(port, None)
        before = processor_ms(pid)
        alone = sorted(scraper.scrape() for _ in range(SCRAPES))
        cost = (processor_ms(pid) - before) / SCRAPES
        rounds = {False: [], True: []}
        for _ in range(options.rounds):
            for is_scraped in (False, True):
                rounds[is_scraped].append(load(port, scraper if is_scraped else None))
    loaded = sorted(took for _, _, all_took in rounds[True] for took in all_took)

    def median(is_scraped, part):
        return statistics.median(ok[part] / 1000 for ok, _, _ in rounds[is_scraped])

    print(f"a scrape costs {cost:.2f} ms of processor time; alone it takes {alone[500]:.2f} ms")
    print(f"under load it takes {loaded[len(loaded) // 2]:.2f} ms, the longest {loaded[-1]:.2f} ms")
    print("requests, medians of rounds    p50 ms   p99 ms   max ms        /s")
    for is_scraped, name in ((False, "without scrapes"), (True, "ten scrapes a second")):
        figures = [median(is_scraped, part) for part in ("p50_us", "p99_us", "max_us")]
        rate = statistics.median(rate for _, rate, _ in rounds[is_scraped])
        print(f"{name:28} {figures[0]:8.2f} {figures[1]:8.2f} {figures[2]:8.2f} {rate:9.0f}")
    # Of neighbours, which the rest of the machine disturbs alike.
    pairs = zip(rounds[True], rounds[False], strict=True)
    ratio = statistics.median(one["p99_us"] / other["p99_us"] for (one, *_), (other, *_) in pairs)
    print(f"p99 with scrapes is {ratio:.2f} of that in the round before, without")
    if cost >= MOST_MS or ratio > MOST_RATIO:
        sys.exit(f"scrape.sh: at most {MOST_MS} ms and a ratio of {MOST_RATIO}")


if __name__ == "__main__":
    main()
