"""Counts the instructions that a request costs on its path through the worker, without sockets and
pipes, and holds them against the recorded counts.

Each case is run twice with different numbers of requests; what both have in common, the start of
the program, falls away in the difference. The count is the same from run to run and does not
depend on how busy or fast the machine is; it does on the compiler, and a little on the processor
(which vector instructions the libraries choose) and on the C library."""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "instructions.json"
BENCH = HERE.parents[1] / "target" / "release" / "examples" / "bench"

CASES = ("small", "escaped", "large")
FEW, MANY = 200, 1200
# More than this part above what was recorded is a failure.
TOLERANCE = 0.05


def instructions(case, requests):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    command += [str(BENCH), "path", "--case", case, "--requests", str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found:
        sys.exit(f"valgrind failed:\n{done.stderr}")
    return int(found[1])


def a_request(case):
    return round((instructions(case, MANY) - instructions(case, FEW)) / (MANY - FEW))


def versions():
    asked = (("rustc", "--version"), ("valgrind", "--version"))
    return [
        subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
        for words in asked
    ]


def main():
    parser = argparse.ArgumentParser(prog="scripts/check/instructions.sh", description=__doc__)
    parser.add_argument(
        "--record", action="store_true", help="take today's counts as what to hold against"
    )
    options = parser.parse_args()
    counted = {case: a_request(case) for case in CASES}
    if options.record:
        RECORDED.write_text(
            json.dumps({"with": versions(), "instructions": counted}, indent=2) + "\n"
        )
    recorded = json.loads(RECORDED.read_text())
    has_grown = False
    print(f"{'request':10} {'recorded':>10} {'counted':>10} {'change':>8}")
    for case, count in counted.items():
        before = recorded["instructions"][case]
        change = count / before - 1
        verdict = ""
        if change > TOLERANCE:
            verdict, has_grown = "  too many", True
        elif change < -TOLERANCE:
            verdict = "  fewer: record it"
        print(f"{case:10} {before:>10,} {count:>10,} {change:>+8.1%}{verdict}")
    if recorded["with"] != versions():
        print(f"recorded with {', '.join(recorded['with'])}; this is {', '.join(versions())}")
    if has_grown:
        print(
            f"a request's path has grown by more than {TOLERANCE:.0%}: mend it, or if it is worth that,\n"
            "record it with scripts/check/instructions.sh --record and say why"
        )
    return 1 if has_grown else 0


if __name__ == "__main__":
    sys.exit(main())
