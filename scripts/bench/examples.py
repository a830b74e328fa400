"""The section `languages`: the example of each language behind the worker, `examples/*/reading.*`.
All of them decode the same reading, so what differs is the language and its runtime."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import cost
import machine
import programs
import servers
from programs import summary

ROUNDS = 3
# Always there: the worker is built with it.
BASELINE = "Rust"
CONNECTIONS = 64
FOLDER = servers.ROOT / "examples"
BUILT = servers.WORK / "languages"
GSON = "/usr/share/java/gson.jar"
STRIP_TYPES = ["node", "--experimental-strip-types"]


@dataclass
class Example:
    """How a language runs its example. `SOURCE` stands for the file, `PROGRAM` for what `build`
    makes; `probe` succeeds where the runtime and the libraries are installed."""

    name: str
    file: str
    run: list
    probe: list
    version: list
    build: list | None = None

    def words(self, template):
        source, program = FOLDER / self.file, BUILT / Path(self.file).stem
        meanings = {"SOURCE": str(source), "PROGRAM": str(program)}
        return [meanings.get(word, str(word)) for word in template]

    def is_installed(self):
        try:
            return subprocess.run(self.probe, capture_output=True, check=False).returncode == 0
        except OSError:
            return False

    def prepare(self):
        if self.build:
            BUILT.mkdir(parents=True, exist_ok=True)
            subprocess.run(self.words(self.build), check=True)

    def server(self):
        return servers.worker(self.words(self.run), name=f"faas-worker, {self.name}")


def interpreted(name, file, *run, probe=None, version=None):
    """A language whose interpreter is given the file."""
    version = version or [run[0], "--version"]
    return Example(name, file, [*run, "SOURCE"], probe or version, version)


def examples():
    rust = servers.RELEASE / "examples" / "reading"
    c = ["cc", "-O2", "-o", "PROGRAM", "SOURCE"]
    go = ["go", "build", "-o", "PROGRAM", "SOURCE"]
    java = ["javap", "-cp", GSON, "com.google.gson.Gson"]
    dash = ["dpkg-query", "-W", "-f", "${Version}", "dash"]
    return [
        Example(BASELINE, "rust/reading.rs", [rust], ["test", "-x", rust], ["rustc", "--version"]),
        Example(
            "C", "c/reading.c", ["PROGRAM"], ["cc", "--version"], ["cc", "-dumpfullversion"], c
        ),
        Example("Go", "go/reading.go", ["PROGRAM"], ["go", "version"], ["go", "version"], go),
        interpreted("Java", "java/Reading.java", "java", "-cp", GSON, probe=java),
        interpreted("JavaScript", "javascript/reading.js", "node"),
        interpreted(
            "TypeScript", "typescript/reading.mts", *STRIP_TYPES, probe=[*STRIP_TYPES, "-e", ""]
        ),
        interpreted("Python", "python/reading.py", "python3"),
        interpreted("Python, asyncio", "python/reading_async.py", "python3"),
        interpreted("PHP", "php/reading.php", "php"),
        interpreted("Ruby", "ruby/reading.rb", "ruby", probe=["ruby", "-rjson", "-e1"]),
        interpreted(
            "Lua",
            "lua/reading.lua",
            "lua5.4",
            probe=["lua5.4", "-e", "require 'dkjson'"],
            version=["lua5.4", "-v"],
        ),
        interpreted("Perl", "perl/reading.pl", "perl", probe=["perl", "-MJSON::PP", "-e1"]),
        interpreted("awk", "awk/reading.awk", "gawk", "-f"),
        interpreted("sh", "shell/reading.sh", "sh", probe=["true"], version=dash),
        interpreted("bash", "shell/reading.bash", "bash"),
        interpreted("jq", "jq/reading.jq", "jq", "--unbuffered", "-ncf", version=["jq", "--version"]),
        interpreted("R", "r/reading.R", "Rscript", probe=["Rscript", "-e", "library(jsonlite)"]),
    ]


def languages(run):
    """The example of each language behind the worker: throughput, times, memory, start"""
    found, left_out = installed(run)
    rounds = []
    most = None if run.rounds_asked else 1 if run.is_quick else ROUNDS
    for number in run.rounds("languages", most=most):
        each = {example.name: one_round(run, number, example) for example in found}
        answers = {name: figures.pop("answer") for name, figures in each.items()}
        if any(answer != answers[found[0].name] for answer in answers.values()):
            raise RuntimeError(f"not the same answers: {answers}")
        rounds.append(each)
    run.keep("languages", rounds)
    run.results["languages"] = {
        "rows": rows(found, rounds),
        "left_out": left_out,
        "rounds": len(rounds),
        "seconds": run.seconds,
        "others_share": cost.others_share(
            [figures for each in rounds for figures in each.values()]
        ),
        "machine": {**machine.facts(), "versions": versions(found)},
    }
    return []


def installed(run):
    """The examples that can be measured, built, and the names of the others with the reason."""
    found, left_out = [], []
    for example in examples():
        if not example.is_installed():
            probe = " ".join(str(word) for word in example.probe)
            left_out.append(f"{example.name} (not installed, for this fails: `{probe}`)")
            run.tell("languages", f"left out: {left_out[-1]}")
            continue
        example.prepare()
        found.append(example)
    return found, left_out


def one_round(run, number, example):
    with example.server() as server:
        figures = cost.measure(server, run.seconds, CONNECTIONS, run.patience)
        alone = programs.load(server, run.seconds / 2, "--connections", 1)
        figures["alone_us"] = alone["ok"]["p50_us"]
        figures["process_mib"] = server.children_memory_kib("Pss") / 1024
        figures["answer"] = cost.answer(server)
    figures["start_ms"] = programs.first_answers(example.server(), 1)[0]
    run.tell(
        f"languages, round {number}",
        f"{example.name}: {figures['per_second']:,.0f}/s, p50 {figures['p50_us']:,.0f} µs, alone "
        f"{figures['alone_us']:,.0f} µs, first answer {figures['start_ms']:,.0f} ms",
    )
    return figures


def rows(found, rounds):
    """The figures of each language, and its ratio to Rust's throughput; the least processor time
    first, for other work on the machine changes that the least."""
    made = []
    for example in found:
        here = [each[example.name] for each in rounds]
        figures = {key: summary([each[key] for each in here]) for key in here[0]}
        made.append({"language": example.name, "file": example.file, **figures})
    made.sort(key=lambda row: row["processor_us"]["median"])
    for row in made:
        rates = [(each[row["language"]], each[BASELINE]) for each in rounds]
        row["ratio"] = summary([one["per_second"] / other["per_second"] for one, other in rates])
    return made


def versions(found):
    said = {}
    for example in found:
        # Lua and R say their version on stderr.
        text = machine.output(*example.version, with_stderr=True)
        if text:
            said.setdefault(example.version[0], (example.name, machine.number_in(text)))
    return dict(said.values())
