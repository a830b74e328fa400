#!/usr/bin/env python3
"""Takes out, one at a time, each rule that the promises rest on, and shows the test that fails.

    scripts/mutate.py                   all rules of tests/mutations
    scripts/mutate.py --sample          a few quick ones
    scripts/mutate.py --only NAME       this rule; may be repeated
    scripts/mutate.py --workers N       rules tried at a time, each in a copy of its own; 1
    scripts/mutate.py --list            names, and nothing else
    scripts/mutate.py --why             what each failing test said, too

    scripts/mutate.py --check           whether the rules fit the sources; some seconds, no build
    scripts/mutate.py --renew OLD NEW   after the identifier OLD became NEW in the sources
    scripts/mutate.py --renew-path OLD NEW
                                        after a file or folder moved: src/a.rs src/b/c.rs
    scripts/mutate.py --mend            after any move: rules and tests that are in one other place

The last three change tests/mutations and tests/PROMISES.md, and what fits the sources as it is
stays as it is. --in PREFIX restricts --renew to quotations from files whose path begins so.

A quotation is compared word by word: line ends, indentation, comments and a comma before a closing
bracket make no difference, so that a source may be formatted anew. It is in its file exactly once.

The tests of a rule must pass in the copy (target/mutate) as it is, and at least one of them must
fail when the rule is out. Exit status 1 if a rule's loss goes unseen, or a rule does not fit.
"""

import argparse
import concurrent.futures
import difflib
import fcntl
import functools
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
RULES = ROOT / "tests/mutations"
PROMISES = ROOT / "tests/PROMISES.md"
COPIES = ROOT / "target/mutate"

# A rule whose loss makes a test hang is found as well.
TEST_LIMIT = 180
BUILD_LIMIT = 900


class Wrong(Exception):
    """The list and the source do not fit together."""


# ---- The list ----------------------------------------------------------------------------------


def load():
    """Each file of rules: its comment at the head, and its sections, one for each source."""
    lists = {}
    for path in sorted(RULES.glob("*.toml")):
        text = path.read_text()
        head = text[: text.index("[[file]]")]
        lists[path] = (head, tomllib.loads(text)["file"])
    return lists


def all_rules(lists):
    return [
        {**rule, "file": section["path"]}
        for _, sections in lists.values()
        for section in sections
        for rule in section["rule"]
    ]


def value(text):
    """A TOML string, in the form that needs no escapes where there is one."""
    if "\n" in text:
        return f"'''\n{text}'''"
    return f"'{text}'" if re.search(r'["\\]', text) and "'" not in text else json.dumps(text, ensure_ascii=False)


def written(head, sections):
    """The only form of a list that --check accepts: the one that can be written anew."""
    text = head
    for section in sections:
        if not section["rule"]:
            continue
        text += f'[[file]]\npath = "{section["path"]}"\n\n'
        for rule in section["rule"]:
            text += "[[file.rule]]\n"
            for key in ("name", "promise", "old", "new"):
                text += f"{key} = {value(rule[key])}\n"
            if len(rule["tests"]) == 1:
                text += f'tests = ["{rule["tests"][0]}"]\n'
            else:
                text += "tests = [\n" + "".join(f'    "{test}",\n' for test in rule["tests"]) + "]\n"
            for key in ("tries", "sample"):
                if key in rule:
                    text += f"{key} = {json.dumps(rule[key])}\n"
            text += "\n"
    return text.rstrip("\n") + "\n"


# ---- Quotations --------------------------------------------------------------------------------

# In this order; comments in strings are text.
RUST = re.compile(
    r'''(?P<raw>\bb?r(?P<hashes>\#*)"[\s\S]*?"(?P=hashes))
    |(?P<string>"(?:\\[\s\S]|[^"\\])*")
    |(?P<character>'(?:\\(?:'|[^']+)|[^'\\])')
    |(?P<comment>//[^\n]*|/\*[\s\S]*?\*/)
    |\w+|[^\w\s]''',
    re.VERBOSE,
)
PYTHON = re.compile(
    r"""(?P<raw>\"\"\"[\s\S]*?\"\"\")
    |(?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<comment>\#[^\n]*)
    |\w+|[^\w\s]""",
    re.VERBOSE,
)
PIECE = re.compile(r"\w+|[^\w\s]")


def tokens(text, language):
    """Words and signs of a source with their places, without comments and commas at an end."""
    found = []
    for match in language.finditer(text):
        if match.lastgroup == "comment":
            continue
        if match.lastgroup in ("raw", "hashes", "string", "character"):
            found += [
                (piece.group(), match.start() + piece.start(), match.start() + piece.end())
                for piece in PIECE.finditer(match.group())
            ]
            continue
        if match.group() in ")]}" and found and found[-1][0] == ",":
            found.pop()
        found.append((match.group(), match.start(), match.end()))
    return found


def language_of(path):
    return PYTHON if path.endswith(".py") else RUST


@functools.cache
def source(path):
    """A source's text, its tokens, and these in one line, for searches."""
    text = (ROOT / path).read_text()
    found = tokens(text, language_of(path))
    return text, found, joined(found)


def joined(found):
    """Each word between two blanks; no word has one."""
    return "".join(f" {word} " for word, _, _ in found)


def occurrences(line, quotation):
    """Places where a quotation begins, as numbers of words."""
    places, at = [], line.find(quotation)
    while at >= 0:
        places.append(line[:at].count(" ") // 2)
        at = line.find(quotation, at + 1)
    return places


def spans(rule, path=None):
    """Where in the source's text a rule's quotation begins and ends, for each time that it is there."""
    path = path or rule["file"]
    if not (ROOT / path).is_file():
        return []
    _, words, line = source(path)
    quotation = tokens(rule["old"], language_of(path))
    return [
        (words[at][1], words[at + len(quotation) - 1][2])
        for at in occurrences(line, joined(quotation))
    ]


def fits(rule, path=None):
    return len(spans(rule, path)) == 1


def nearest(rule):
    """The place in the file that resembles a quotation most: its line's number, and its text."""
    text, words, _ = source(rule["file"])
    wanted = [word for word, _, _ in tokens(rule["old"], language_of(rule["file"]))]
    best, place = -1.0, None
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(wanted)
    size = len(wanted)
    known = set(wanted)
    for at in range(max(1, len(words) - size + 1)):
        piece = [word for word, _, _ in words[at : at + size]]
        # Most places have hardly a word of it.
        if sum(word in known for word in piece) <= best * len(piece):
            continue
        matcher.set_seq1(piece)
        ratio = matcher.ratio()
        if ratio > best:
            best, place = ratio, at
    if place is None:
        return None
    begin, end = words[place][1], words[min(place + size, len(words)) - 1][2]
    return text.count("\n", 0, begin) + 1, " ".join(text[begin:end].split())


# ---- Tests -------------------------------------------------------------------------------------

NAMED = re.compile(r"\b(?:it|lib)(?:::\w+)+")


@functools.cache
def functions():
    """Each test that exists: the last part of its name, and its paths."""
    known = {}
    for path in [*ROOT.glob("src/**/*.rs"), *ROOT.glob("tests/*.rs")]:
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[0] == "tests":
            module = ["it", *parts[1:]]
        else:
            if parts[-1] in ("mod", "tests"):
                parts.pop()
            parts[-1] = parts[-1].removesuffix("_tests")
            module = ["lib", *parts[1:], "tests"]
        prefix = "::".join(module)
        for name in re.findall(r"^\s*(?:async )?fn (\w+)\(", path.read_text(), re.MULTILINE):
            known.setdefault(name, set()).add(f"{prefix}::{name}")
    return known


def exists(test):
    return test in functions().get(test.rsplit("::", 1)[1], ())


def module_of(path):
    """`src/a/b.rs` and `src/a/b/mod.rs` are lib::a::b."""
    parts = list(pathlib.PurePosixPath(path).with_suffix("").parts[1:])
    if parts and parts[-1] == "mod":
        parts.pop()
    return "::".join(["lib", *parts])


# ---- Whether the list fits ---------------------------------------------------------------------


def unfit(rule):
    """How a rule's quotation does not fit its source; None if it does."""
    if not (ROOT / rule["file"]).is_file():
        return f"there is no {rule['file']}"
    found = spans(rule)
    if len(found) == 1:
        language = language_of(rule["file"])
        if joined(tokens(rule["old"], language)) == joined(tokens(rule["new"], language)):
            return "nothing would be taken out"
        return None
    text = source(rule["file"])[0]
    if found:
        lines = ", ".join(str(text.count("\n", 0, begin) + 1) for begin, _ in found)
        return f"`{rule['old']}` is {len(found)} times in {rule['file']}: lines {lines}"
    said = f"`{rule['old']}` is not in {rule['file']}"
    elsewhere = places(rule)
    if elsewhere:
        return f"{said}, but in {', '.join(elsewhere)}"
    similar = nearest(rule)
    return f"{said}; like it, line {similar[0]}: `{similar[1]}`" if similar else said


def places(rule):
    """Other files that have a rule's quotation exactly once, if it is long enough to tell."""
    if len(tokens(rule["old"], language_of(rule["file"]))) < 8:
        return []
    suffix = pathlib.PurePosixPath(rule["file"]).suffix
    names = [*ROOT.glob(f"src/**/*{suffix}"), *ROOT.glob(f"examples/**/*{suffix}")]
    names = sorted(str(path.relative_to(ROOT)) for path in names)
    return [name for name in names if name != rule["file"] and fits(rule, name)]


def faults(lists):
    """All that does not fit: a line for each."""
    said = []
    for path, (head, sections) in lists.items():
        if written(head, sections) != path.read_text():
            name = path.relative_to(ROOT)
            said.append(f"{name}: not in the form in which it is written; --mend does that")
    rules = all_rules(lists)
    names = [rule["name"] for rule in rules]
    said += [f"{name}: is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    for rule in rules:
        wrong = unfit(rule)
        if wrong:
            said.append(f"{rule['name']}: {wrong}")
        for test in rule["tests"]:
            if not exists(test):
                said.append(f"{rule['name']}: there is no test {test}{hint(test)}")
    for test in sorted(set(NAMED.findall(PROMISES.read_text()))):
        if not exists(test):
            said.append(f"tests/PROMISES.md: there is no test {test}{hint(test)}")
    return said


def hint(test):
    name = test.rsplit("::", 1)[1]
    known = sorted(functions().get(name, ()))
    if known:
        return f", but {', '.join(known)}"
    close = difflib.get_close_matches(name, functions(), n=1)
    return f"; like it: {sorted(functions()[close[0]])[0]}" if close else ""


# ---- Bringing the list up to date --------------------------------------------------------------


def renew_tests(text, changed):
    """Writes tests that are gone by their new names, where these exist."""
    def new_name(match):
        test = match.group()
        if exists(test):
            return test
        new = changed(test)
        return new if new and exists(new) else test

    return NAMED.sub(new_name, text)


def save(lists, changed_test):
    """Writes lists and promises with the new names of tests, and says how many lines that changed."""
    texts = {path: written(head, sections) for path, (head, sections) in lists.items()}
    texts[PROMISES] = PROMISES.read_text()
    for path, text in texts.items():
        text = renew_tests(text, changed_test)
        before = path.read_text().splitlines()
        if before != text.splitlines():
            count = sum(line.startswith("+ ") for line in difflib.ndiff(before, text.splitlines()))
            print(f"{path.relative_to(ROOT)}: {count} lines changed")
            path.write_text(text)


def renew(lists, old, new, prefix):
    """Puts a new identifier into quotations that do not fit any more, and what takes their place."""
    word = re.compile(rf"\b{re.escape(old)}\b")
    for _, sections in lists.values():
        for section in sections:
            path = section["path"]
            if not path.startswith(prefix) or not (ROOT / path).is_file():
                continue
            is_still_there = word.search(source(path)[0])
            for rule in section["rule"]:
                if not fits({**rule, "file": path}):
                    rule["old"] = word.sub(lambda _: new, rule["old"])
                    rule["new"] = word.sub(lambda _: new, rule["new"])
                elif not is_still_there:
                    rule["new"] = word.sub(lambda _: new, rule["new"])
                elif word.search(rule["new"]) and not word.search(rule["old"]):
                    print(f"{rule['name']}: keeps {old} in its `new`, for {path} has it still")
    save(lists, lambda test: word.sub(lambda _: new, test))


def renew_path(lists, old, new):
    """Moves rules from a file or folder to another; they stay if they fit only where they are."""
    old, new = old.rstrip("/"), new.rstrip("/")
    for _, sections in lists.values():
        for section in list(sections):
            path = section["path"]
            if path != old and not path.startswith(f"{old}/"):
                continue
            target = new + path[len(old) :]
            if not (ROOT / target).is_file():
                print(f"there is no {target}: the rules of {path} stay")
                continue
            moved = []
            for rule in section["rule"]:
                whole = {**rule, "file": path}
                if not (ROOT / path).is_file() or (not fits(whole) and fits(whole, target)):
                    moved.append(rule)
            move(sections, section, moved, target)
    before, after = module_of(old), module_of(new)
    save(lists, lambda test: after + test[len(before) :] if test.startswith(f"{before}::") else None)


def move(sections, section, moved, target):
    """Puts rules of one section under another file, which follows it if it is new."""
    if not moved:
        return
    section["rule"] = [rule for rule in section["rule"] if rule not in moved]
    same = [other for other in sections if other["path"] == target]
    if same:
        same[0]["rule"] += moved
    else:
        sections.insert(sections.index(section) + 1, {"path": target, "rule": moved})


def mend(lists):
    """Moves what does not fit and is in exactly one other place."""
    for _, sections in lists.values():
        for section in list(sections):
            targets = set()
            for rule in list(section["rule"]):
                whole = {**rule, "file": section["path"]}
                found = [] if fits(whole) else places(whole)
                if len(found) == 1:
                    targets.update(found)
                    print(f"{rule['name']}: {section['path']} -> {found[0]}")
                    move(sections, section, [rule], found[0])
            # Too short to be looked for everywhere: these go where the others of their file went.
            for rule in list(section["rule"]):
                whole = {**rule, "file": section["path"]}
                found = [] if fits(whole) else [name for name in targets if fits(whole, name)]
                if len(found) == 1:
                    print(f"{rule['name']}: {section['path']} -> {found[0]}")
                    move(sections, section, [rule], found[0])

    def only_one(test):
        known = functions().get(test.rsplit("::", 1)[1], ())
        return next(iter(known)) if len(known) == 1 else None

    save(lists, only_one)


# ---- Trying rules ------------------------------------------------------------------------------


def split(test):
    """`it::dying::a_test` is the test `dying::a_test` of the test program `it`."""
    kind, _, name = test.partition("::")
    return kind, name


def kinds_of(rules):
    """Test programs in the order in which they are tried: the unit tests are built sooner."""
    return sorted({split(test)[0] for rule in rules for test in rule["tests"]}, reverse=True)


class Copy:
    """A copy of the tree with a build directory of its own, in which one rule at a time is out."""

    def __init__(self, number):
        self.tree = COPIES / f"tree{number}"
        self.build_directory = COPIES / f"build{number}"
        self.tree.mkdir(parents=True, exist_ok=True)
        self.environment = {
            **os.environ,
            "CARGO_TARGET_DIR": str(self.build_directory),
            # Half the time to build and link; a failing test needs no line numbers here.
            "CARGO_PROFILE_DEV_DEBUG": "0",
            "RUST_BACKTRACE": "0",
        }

    def run(self, command, limit):
        """Runs a command in a group of its own, and ends the group after the limit."""
        child = subprocess.Popen(
            command,
            cwd=self.tree,
            env=self.environment,
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

    def refresh(self):
        """Brings the copy up to date; files that are the same keep their times, and are not rebuilt."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split("\0")
        wanted = {name for name in listed if name and (ROOT / name).is_file()}
        for path in sorted(self.tree.rglob("*"), reverse=True):
            if path.is_file() and str(path.relative_to(self.tree)) not in wanted:
                path.unlink()
        for name in wanted:
            original, copy = ROOT / name, self.tree / name
            if not copy.exists() or copy.read_bytes() != original.read_bytes():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(original, copy)

    def build(self, kinds, examples=False):
        """Builds the test programs of these kinds; gives their paths, or the compiler's words."""
        if examples:
            said, status = self.run(["cargo", "build", "--locked", "-q", "--examples"], BUILD_LIMIT)
            if status != 0:
                return None, said
        programs = {}
        targets = [word for kind in kinds for word in (["--lib"] if kind == "lib" else ["--test", kind])]
        command = ["cargo", "test", "--locked", "-q", "--no-run", "--message-format=json", *targets]
        said, status = self.run(command, BUILD_LIMIT)
        if status != 0:
            return None, said
        for line in said.splitlines():
            message = json.loads(line) if line.startswith("{") else {}
            if message.get("executable") and message["profile"]["test"]:
                name = message["target"]["name"]
                programs["lib" if "lib" in message["target"]["kind"] else name] = message["executable"]
        return programs, ""

    def complaint(self, programs, test):
        """What a test said when it failed, or None; one that is not there is an error of the list."""
        kind, name = split(test)
        said, status = self.run([programs[kind], "--exact", name], TEST_LIMIT)
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

    def attempt(self, rule):
        """The test that missed the rule, and what it said; None if no test did."""
        path = self.tree / rule["file"]
        before = path.read_text()
        begin, end = spans(rule)[0]
        path.write_text(before[:begin] + rule["new"] + before[end:])
        try:
            for kind in kinds_of([rule]):
                is_library = kind == "it" and rule["file"].startswith("src/handler")
                programs, said = self.build([kind], examples=is_library)
                if programs is None:
                    raise Wrong("without it the source does not build:\n" + said[-2000:])
                tests = [test for test in rule["tests"] if split(test)[0] == kind]
                # Where chance has a say, a rule may be given more than one try.
                for _ in range(rule.get("tries", 1)):
                    for test in tests:
                        said = self.complaint(programs, test)
                        if said:
                            return test, said
            return None
        finally:
            path.write_text(before)


def outcome_of(copy, rule):
    """The row of a rule: outcome, seconds, the test that saw it, and what this said."""
    begun = time.monotonic()
    try:
        missed = copy.attempt(rule)
        outcome = "killed" if missed else "SURVIVED"
        test, said = missed or (", ".join(rule["tests"]), "")
    except Wrong as wrong:
        outcome, test, said = "WRONG", str(wrong), ""
    return outcome, time.monotonic() - begun, test, said


def prepare(rules, workers):
    """Copies the tree, builds the tests as they are, and stops if one of those named fails."""
    copies = [Copy(number) for number in range(workers)]
    kinds = kinds_of(rules)
    print("building the tests as they are …", flush=True)
    for copy in copies:
        copy.refresh()
        # Most of a build is dependencies: the copies share what the first has built.
        if copy is not copies[0] and not copy.build_directory.exists():
            shutil.copytree(copies[0].build_directory, copy.build_directory, symlinks=True)
        programs, said = copy.build(kinds, examples="it" in kinds)
        if programs is None:
            sys.exit("mutate.py: the source does not build:\n" + said[-4000:])
    failed = set()
    for test in sorted({test for rule in rules for test in rule["tests"]}):
        try:
            said = copies[-1].complaint(programs, test)
            if said:
                failed.add(f"{test}: {said}")
        except Wrong as wrong:
            sys.exit(f"mutate.py: {wrong}")
    if failed:
        sys.exit("mutate.py: fail with nothing taken out:\n  " + "\n  ".join(sorted(failed)))
    return copies


def try_out(rules, workers, why):
    """Takes out each rule, and prints its row; gives the number of those that no test missed."""
    free = queue.SimpleQueue()
    for copy in prepare(rules, workers):
        free.put(copy)

    def one(rule):
        copy = free.get()
        try:
            return rule, outcome_of(copy, rule)
        finally:
            free.put(copy)

    survivors = 0
    print(f"{'rule':<34} {'promise':<12} {'outcome':<9} {'s':>4}  test", flush=True)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for done in concurrent.futures.as_completed([pool.submit(one, rule) for rule in rules]):
            rule, (outcome, took, test, said) = done.result()
            survivors += outcome != "killed"
            print(
                f"{rule['name']:<34} {rule['promise']:<12} {outcome:<9} {took:>4.0f}  {test}",
                flush=True,
            )
            if why and said:
                print(f"    {said}", flush=True)
    print(f"killed: {len(rules) - survivors} of {len(rules)}")
    return survivors


def chosen(rules, options):
    unknown = set(options.only) - {rule["name"] for rule in rules}
    if unknown:
        sys.exit(f"mutate.py: unknown: {sorted(unknown)}")
    if options.only:
        return [rule for rule in rules if rule["name"] in options.only]
    if options.sample:
        return [rule for rule in rules if rule.get("sample")]
    return rules


def report(lists):
    """Prints all that does not fit; the exit status."""
    said = faults(lists)
    for line in said:
        print(line)
    if not said:
        print(f"{len(all_rules(lists))} rules fit the sources")
    return 1 if said else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--sample", action="store_true", help="a few quick ones")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="rules at a time")
    parser.add_argument("--list", action="store_true", help="names, and nothing else")
    parser.add_argument("--why", action="store_true", help="what each failing test said, too")
    parser.add_argument("--check", action="store_true", help="whether the rules fit the sources")
    parser.add_argument("--renew", nargs=2, metavar=("OLD", "NEW"), help="an identifier's new name")
    parser.add_argument("--renew-path", nargs=2, metavar=("OLD", "NEW"), help="a file's new place")
    parser.add_argument("--mend", action="store_true", help="follow what is in one other place")
    parser.add_argument("--in", dest="prefix", default="", metavar="PREFIX", help="for --renew")
    options = parser.parse_args()
    lists = load()
    if options.renew or options.renew_path or options.mend:
        if options.renew:
            renew(lists, *options.renew, options.prefix)
        elif options.renew_path:
            renew_path(lists, *options.renew_path)
        else:
            mend(lists)
        return report(load())
    if options.check:
        return report(lists)
    rules = chosen(all_rules(lists), options)
    if options.list:
        for rule in rules:
            print(rule["name"])
        return 0
    if report(lists):
        return 1
    COPIES.mkdir(parents=True, exist_ok=True)
    # Two at a time would change each other's copies. Let go when the process ends.
    lock = open(COPIES / "lock", "w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return 1 if try_out(rules, options.workers, options.why) else 0


if __name__ == "__main__":
    sys.exit(main())
