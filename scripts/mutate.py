#!/usr/bin/env python3
"""Takes out, one at a time, each rule that the promises rest on, and shows the test that fails.

    scripts/mutate.py                 all rules of scripts/mutations.toml
    scripts/mutate.py --sample        a few quick ones
    scripts/mutate.py --only NAME     this rule; may be repeated
    scripts/mutate.py --list          names, and nothing else
    scripts/mutate.py --why           what each failing test said, too

Works on a copy of the tree in target/mutate. The tests named must pass there as it is, and at
least one of them must fail when the rule is out. Exit status 1 if a rule's loss goes unseen, if
its text is not in the source exactly once, or if a test of that name does not exist.
"""

import argparse
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
TREE = ROOT / "target/mutate/tree"
TARGET = ROOT / "target/mutate/build"

# A rule whose loss makes a test hang is found as well.
TEST_LIMIT = 180
BUILD_LIMIT = 900

ENVIRONMENT = {
    **os.environ,
    "CARGO_TARGET_DIR": str(TARGET),
    # Half the time to build and link; a failing test needs no line numbers here.
    "CARGO_PROFILE_DEV_DEBUG": "0",
    "RUST_BACKTRACE": "0",
}


class Wrong(Exception):
    """The list and the source do not fit together."""


def run(command, limit):
    """Runs a command in a group of its own, and ends the group after the limit."""
    child = subprocess.Popen(
        command,
        cwd=TREE,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        return child.communicate(timeout=limit)[0], child.returncode
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        return child.communicate()[0], None


def copy_tree():
    """Brings the copy up to date; files that are the same keep their times, and are not rebuilt."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    wanted = {name for name in listed if name and (ROOT / name).is_file()}
    for path in sorted(TREE.rglob("*"), reverse=True):
        if path.is_file() and str(path.relative_to(TREE)) not in wanted:
            path.unlink()
    for name in wanted:
        source, copy = ROOT / name, TREE / name
        if not copy.exists() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)


def build(kinds, examples):
    """Builds the test programs of these kinds; gives their paths, or the compiler's words."""
    if examples:
        said, status = run(["cargo", "build", "--locked", "-q", "--examples"], BUILD_LIMIT)
        if status != 0:
            return None, said
    programs = {}
    for kind in kinds:
        target = ["--lib"] if kind == "lib" else ["--test", kind]
        command = ["cargo", "test", "--locked", "-q", "--no-run", "--message-format=json", *target]
        said, status = run(command, BUILD_LIMIT)
        if status != 0:
            return None, said
        for line in said.splitlines():
            message = json.loads(line) if line.startswith("{") else {}
            if message.get("executable") and message["profile"]["test"]:
                programs[kind] = message["executable"]
    return programs, ""


def split(test):
    """`it::dying::a_test` is the test `dying::a_test` of the test program `it`."""
    kind, _, name = test.partition("::")
    return kind, name


def complaint(programs, test):
    """What a test said when it failed, or None; one that is not there is an error of the list."""
    kind, name = split(test)
    said, status = run([programs[kind], "--exact", name], TEST_LIMIT)
    if "running 0 tests" in said:
        raise Wrong(f"there is no test {test}")
    if status == 0:
        return None
    if status is None:
        return f"not done after {TEST_LIMIT} s"
    lines = said.splitlines()
    panics = [at for at, line in enumerate(lines) if " panicked at " in line]
    said = [line for line in lines[panics[0] :][:4] if not line.startswith("note:")] if panics else []
    return " ".join(said) or f"exit status {status}"


def take_out(rule):
    """Gives the source with the rule and without."""
    path = TREE / rule["file"]
    before = path.read_text()
    count = before.count(rule["old"])
    if count != 1:
        raise Wrong(f"its text is in {rule['file']} {count} times, not once")
    return path, before, before.replace(rule["old"], rule["new"])


def check_texts(rules):
    """Stops if the source has moved away from a rule, chosen or not."""
    stale = []
    for rule in rules:
        try:
            take_out(rule)
        except Wrong as wrong:
            stale.append(f"{rule['name']}: {wrong}")
    if stale:
        sys.exit("mutate.py: rules that nothing can be taken out for:\n  " + "\n  ".join(stale))


def attempt(rule):
    """The test that missed the rule, and what it said; None if no test did."""
    path, before, after = take_out(rule)
    path.write_text(after)
    try:
        kinds = sorted({split(test)[0] for test in rule["tests"]})
        programs, said = build(kinds, examples=rule["file"] == "src/handler.rs")
        if programs is None:
            raise Wrong("without it the source does not build:\n" + said[-2000:])
        # Where chance has a say, a rule may be given more than one try.
        for _ in range(rule.get("tries", 1)):
            for test in rule["tests"]:
                said = complaint(programs, test)
                if said:
                    return test, said
        return None
    finally:
        path.write_text(before)


def chosen(rules, options):
    names = [rule["name"] for rule in rules]
    doubled = {name for name in names if names.count(name) > 1}
    unknown = set(options.only) - set(names)
    if doubled or unknown:
        sys.exit(f"mutate.py: named twice: {sorted(doubled)}, unknown: {sorted(unknown)}")
    if options.only:
        return [rule for rule in rules if rule["name"] in options.only]
    if options.sample:
        return [rule for rule in rules if rule.get("sample")]
    return rules


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--sample", action="store_true", help="a few quick ones")
    parser.add_argument("--list", action="store_true", help="names, and nothing else")
    parser.add_argument("--why", action="store_true", help="what each failing test said, too")
    options = parser.parse_args()
    with open(ROOT / "scripts/mutations.toml", "rb") as file:
        known = tomllib.load(file)["rule"]
    rules = chosen(known, options)
    if options.list:
        for rule in rules:
            print(rule["name"])
        return 0

    TREE.mkdir(parents=True, exist_ok=True)
    # Two at a time would change each other's copy. Let go when the process ends.
    lock = open(TREE.parent / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    copy_tree()
    check_texts(known)
    kinds = sorted({split(test)[0] for rule in rules for test in rule["tests"]})
    print("building the tests as they are …", flush=True)
    programs, said = build(kinds, examples="it" in kinds)
    if programs is None:
        sys.exit("mutate.py: the source does not build:\n" + said[-4000:])
    failed = set()
    for test in sorted({test for rule in rules for test in rule["tests"]}):
        try:
            said = complaint(programs, test)
            if said:
                failed.add(f"{test}: {said}")
        except Wrong as wrong:
            sys.exit(f"mutate.py: {wrong}")
    if failed:
        sys.exit("mutate.py: fail with nothing taken out:\n  " + "\n  ".join(sorted(failed)))

    survivors = 0
    print(f"{'rule':<34} {'promise':<12} {'outcome':<9} {'s':>4}  test", flush=True)
    for rule in rules:
        begun = time.monotonic()
        try:
            missed = attempt(rule)
            outcome = "killed" if missed else "SURVIVED"
            test, said = missed or (", ".join(rule["tests"]), "")
        except Wrong as wrong:
            outcome, test, said = "WRONG", str(wrong), ""
        survivors += outcome != "killed"
        took = time.monotonic() - begun
        print(
            f"{rule['name']:<34} {rule['promise']:<12} {outcome:<9} {took:>4.0f}  {test}",
            flush=True,
        )
        if options.why and said:
            print(f"    {said}", flush=True)
    print(f"killed: {len(rules) - survivors} of {len(rules)}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
