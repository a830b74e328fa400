"""What scripts/check/spark.sh runs in its environment of Python: spark.py WORKER LINES"""

import contextlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTITIONS = 4

sys.path.insert(0, str(ROOT / "examples/python"))
from handler import decode_type_a


def check(is_so, what):
    if not is_so:
        raise SystemExit(f"check/spark.py: {what}")


# ---- Processes ---------------------------------------------------------------------------------------


def command_of(process):
    try:
        return pathlib.Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


def below(process):
    """All processes below this one."""
    try:
        tasks = list(pathlib.Path(f"/proc/{process}/task").iterdir())
        children = [int(word) for task in tasks for word in (task / "children").read_text().split()]
    except OSError:
        return []
    return [one for child in children for one in (child, *below(child))]


def born(process):
    """When a process was started: with its number, its name for good; None if it is gone."""
    try:
        status = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if status[0] == "Z" else status[19]


def bytes_read(process):
    try:
        return int(pathlib.Path(f"/proc/{process}/io").read_text().split()[1])
    except OSError:
        return 0


def executors(driver):
    """The processes of `faas-worker map` by their executors, below this driver alone."""
    found = {}
    for executor in below(driver):
        if any(word.endswith("CoarseGrainedExecutorBackend") for word in command_of(executor)):
            found[executor] = [one for one in below(executor) if command_of(one)[1:2] == ["map"]]
    return found


# ---- A million lines ---------------------------------------------------------------------------------


def lines_of(part, count):
    """A part's lines; one in a hundred is no reading, and one has what lines of JSON escape."""
    for number in range(count):
        if number % 100 == 99:
            yield f'part {part}, line {number}: "no" reading \\ \u2028 \u00e9'
        else:
            yield f"dev-{part}-{number},{number / 8},{1700000000 + number}"


def write_parts(folder, count):
    folder.mkdir()
    for part in range(PARTITIONS):
        with open(folder / f"part-{part}", "w", encoding="utf-8") as file:
            file.writelines(line + "\n" for line in lines_of(part, count))


def kill_one_in_mid_run(driver, least):
    """Kills an executor whose `map` has read so many bytes; gives all processes below the driver then."""
    end = time.monotonic() + 300
    while time.monotonic() < end and driver.poll() is None:
        for executor, maps in executors(driver.pid).items():
            read = max(map(bytes_read, maps), default=0)
            if read > least:
                seen = {one: born(one) for one in below(driver.pid)}
                os.kill(executor, signal.SIGKILL)
                print(f"killed an executor whose map had read {read} bytes", flush=True)
                return seen
        time.sleep(0.05)
    raise SystemExit("check/spark.py: no map came to its mid-run")


def compare(target, count):
    """Each partition's replies against plain Python; Spark gives partitions to files in any order."""
    parts = set()
    for partition in sorted(target.glob("part-*")):
        with open(partition, encoding="utf-8", newline="\n") as replies:
            first = replies.readline()
            part = int(json.loads(first)["result"]["device_id"].split("-")[1])
            parts.add(part)
            for number, line in enumerate(lines_of(part, count)):
                reply = json.loads(replies.readline() if number else first)
                what = f"part {part}, line {number}: {line!r} was answered {reply}"
                check(reply == {"result": decode_type_a(line)}, what)
            check(replies.read() == "", f"part {part} has lines more than its input")
    check(parts == set(range(PARTITIONS)), f"only these parts are there: {parts}")
    check((target / "_SUCCESS").exists(), "the job did not end well")


def runs_a_million_lines(work, program, lines):
    source, target = work / "source", work / "target"
    write_parts(source, lines // PARTITIONS)
    handler = ["python3", str(ROOT / "examples/python/serve.py")]
    handler.append(f"{ROOT}/examples/python/handler.py:decode_type_a")
    submit = pathlib.Path(sys.executable).with_name("spark-submit")
    words = [submit, "--master", "local-cluster[2,1,1024]", ROOT / "examples/deploy/spark/pipe.py"]
    begin = time.monotonic()
    with open(work / "driver.log", "wb") as log:
        driver = subprocess.Popen(
            [*words, source.as_uri(), target.as_uri(), *handler],
            env=os.environ | {"MAP_PROGRAM": program},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=work,
        )
        try:
            seen = kill_one_in_mid_run(driver, (source / "part-0").stat().st_size // 6)
            status = driver.wait(900)
        finally:
            if driver.poll() is None:
                driver.terminate()
                driver.wait(30)
    took = time.monotonic() - begin
    log = (work / "driver.log").read_text(encoding="utf-8", errors="replace")
    check(status == 0, f"spark-submit ended with status {status}\n{log[-4000:]}")
    check("Lost executor" in log, f"Spark has not noticed the kill\n{log[-4000:]}")
    compare(target, lines // PARTITIONS)
    print(f"{lines} lines in {PARTITIONS} partitions, in {took:.1f} s: as plain Python has them")
    end = time.monotonic() + 20
    while left := [one for one, when in seen.items() if when and born(one) == when]:
        check(time.monotonic() < end, f"still run: {[command_of(one) for one in left]}")
        time.sleep(0.1)
    print(f"of {len(seen)} processes none is left")


# ---- Environment and exit status -----------------------------------------------------------------------


@contextlib.contextmanager
def quiet(log):
    """Standard error, of Spark and of all that it runs, goes into a file; it is shown if this fails."""
    shown = os.dup(2)
    with open(log, "w+b") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        except BaseException:
            file.seek(0)
            os.write(shown, file.read()[-4000:])
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def fails(replies, what):
    """That the job of these replies fails, and why."""
    from py4j.protocol import Py4JJavaError

    try:
        found = replies.collect()
    except Py4JJavaError as error:
        check(what in str(error), f"it failed otherwise than by {what}: {error}")
        return
    raise SystemExit(f"check/spark.py: {what} was expected, and not {found}")


def environment_and_status(work, program):
    from pyspark import SparkConf, SparkContext

    settings = SparkConf().setMaster("local[2]").setAppName("check").set("spark.ui.enabled", "false")
    settings.set("spark.local.dir", str(work))
    context = SparkContext(conf=settings)
    context.setLogLevel("OFF")
    handler = [ROOT / "examples/python/serve.py", f"{ROOT}/examples/python/handler.py:raises"]

    def piped(elements, options, handler=handler, **how):
        words = [program, "map", "-j", "1", *options, "--", "python3", *handler]
        return context.parallelize(elements, 2).pipe(shlex.join(map(str, words)), **how)

    one = context.parallelize(["x"], 1)
    check(one.pipe("/usr/bin/env").collect() == [], "a command has an environment by default")
    check("PATH" in os.environ, "this shell has no PATH")
    whole = one.pipe("/usr/bin/env", env=dict(os.environ)).collect()
    check(f"PATH={os.environ['PATH']}" in whole, "env= does not give an environment")
    identity = [handler[0], f"{ROOT}/examples/python/handler.py:identity"]
    same = piped(["a", "b\u2028"], [], identity).collect()
    check(list(map(json.loads, same)) == [{"result": "a"}, {"result": "b\u2028"}], f"without PATH: {same}")
    said = (work / "local.log").read_text(encoding="utf-8", errors="replace")
    check("PATH is not set" in said, "map says nothing of the missing PATH")
    print("env=None: the command has no variable at all; map finds python3 all the same, and says so")

    failed = piped(["a", "b", "c"], []).map(json.loads).collect()
    check(len(failed) == 3 and all("error" in one for one in failed), f"failed items: {failed}")
    missing = [ROOT / "no-such-file.py"]
    check(piped(["a", "b"], [], missing).collect() == [], "a handler that cannot start has replies")
    print("checkCode=False: failed items, and even a handler that cannot be started, fail no job")

    fails(piped(["a", "b", "c"], [], checkCode=True), "exited with error code 1")
    fails(piped(["a", "b"], [], missing, checkCode=True), "exited with error code 3")
    left = piped(["a", "b", "c"], ["--exit-zero"], checkCode=True).map(json.loads).collect()
    check(left == failed, f"--exit-zero: {left}")
    fails(piped(["a"], ["--exit-zero"], missing, checkCode=True), "exited with error code 3")
    print("checkCode=True: both fail it; with --exit-zero the second alone")

    two = context.parallelize(["a\nb", "c"], 1)
    words = shlex.join(map(str, [program, "map", "-j", "1", "--json", "--", "python3", *identity]))
    broken = two.pipe(words.replace(" --json", "")).count()
    whole = two.map(json.dumps).pipe(words).map(json.loads).collect()
    check(broken == 3, f"a line break made {broken} lines of two elements")
    check(whole == [{"result": "a\nb"}, {"result": "c"}], f"--json: {whole}")
    print("two elements with a line break: three lines, and two with --json")
    context.stop()


def main():
    program, lines = sys.argv[1], int(sys.argv[2])
    begin = time.monotonic()
    # Not in the project's folder: Spark leaves its own behind.
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        work = pathlib.Path(folder)
        runs_a_million_lines(work, program, lines)
        with quiet(work / "local.log"):
            environment_and_status(work, program)
    print(f"check/spark.py: all passed in {time.monotonic() - begin:.0f} s")


main()
