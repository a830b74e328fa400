"""A worker under Prometheus: see prometheus.sh."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "examples" / "deploy" / "observability" / "grafana-dashboard.json"
RULES = ROOT / "examples" / "deploy" / "observability" / "rules.yml"
PATIENCE = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def running(command, log):
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def get(port, path, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def post(port, payload, timeout=10):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    headers = {"content-type": "application/json"}
    connection.request("POST", "/", json.dumps({"payload": payload}), headers)
    return connection.getresponse().status


def until(what, try_it):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            found = try_it()
        except OSError:
            found = None
        if found:
            return found
        time.sleep(0.2)
    raise SystemExit(f"prometheus.sh: in vain: {what}")


def drive(port, worker):
    """Each outcome that the rules look at, and some more."""
    for number in range(200):
        assert post(port, f"echo {number}") == 200
    assert post(port, "error no such device") == 400
    assert post(port, "exit 3") == 502
    assert post(port, "hang") == 504
    with contextlib.suppress(TimeoutError):
        post(port, "sleep 400", timeout=0.1)
    worker.send_signal(signal.SIGHUP)


def expressions():
    """The rules' expressions, without the limits that make alerts of them."""
    text = RULES.read_text()
    found = re.findall(r"expr: (?:>-\n)?((?:.+\n)(?:          .+\n)*)", text)
    return [re.sub(r" (?:==|>) [\d.]+$", "", " ".join(one.split())) for one in found]


def panel_expressions():
    """The dashboard's expressions, with its variables filled in as Grafana does."""
    dashboard = json.loads(DASHBOARD.read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids) and dashboard["schemaVersion"] >= 39
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "1m")
            yield expression.replace("$job", ".*").replace("$instance", ".*")


def query(port, expression):
    path = "/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    status, body = get(port, path)
    answer = json.loads(body)
    if status != 200:
        raise SystemExit(f"prometheus.sh: {expression}: {answer.get('error')}")
    return answer["data"]["result"]


def numbers(port, expression):
    """What an expression gives that is a number: a quantile without an upper bucket is none."""
    return [one for one in query(port, expression) if one["value"][1] != "NaN"]


def configuration(folder, port):
    jobs = "".join(
        f"""
  - job_name: {name}
    scrape_interval: 1s
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""
        for name in ("faas-worker",)
    )
    path = Path(folder, "prometheus.yml")
    path.write_text(f"rule_files:\n  - {RULES}\nscrape_configs:{jobs}")
    return path


def main():
    subprocess.run(["promtool", "check", "rules", RULES], check=True, stdout=subprocess.DEVNULL)
    port, prometheus = free_port(), free_port()
    worker_command = [ROOT / "target/debug/faas-worker", "--port", str(port), "--timeout", "300ms"]
    worker_command += ["--", ROOT / "target/debug/examples/misbehave", "--ready"]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        worker = stack.enter_context(running(worker_command, Path(folder, "worker.log")))
        until("the worker is ready", lambda: get(port, "/ready")[0] == 200)
        command = ["prometheus", f"--config.file={configuration(folder, port)}"]
        command += [f"--storage.tsdb.path={folder}/data"]
        command += [f"--web.listen-address=127.0.0.1:{prometheus}"]
        log = Path(folder, "prometheus.log")
        stack.enter_context(running(command, log))
        until("the first scrape", lambda: query(prometheus, "faas_ready"))
        drive(port, worker)
        until("the reload", lambda: query(prometheus, "faas_reload_successful == 1"))
        for expression in [*expressions(), *panel_expressions()]:
            until(expression, lambda expression=expression: numbers(prometheus, expression))
            print(f"ok  {expression}")
        counted = until(
            "all outcomes", lambda: query(prometheus, "sum(faas_requests_total) >= 204")
        )
        print(f"ok  {counted[0]['value'][1]} requests counted, 204 sent")
        assert counted[0]["value"][1] == "204", counted
        text = get(port, "/metrics")[1]
        check = subprocess.run(
            ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False
        )
        if check.returncode or check.stdout or check.stderr:
            raise SystemExit(f"promtool check metrics: {check.stdout}{check.stderr}")
        print("ok  promtool check metrics is silent")
        status, text = get(port, "/metrics", {"accept": "application/openmetrics-text"})
        assert status == 200 and text.endswith("# EOF\n")
        print(f"ok  {len(text.splitlines())} lines of OpenMetrics")


if __name__ == "__main__":
    os.environ.pop("FAAS_ADMIN", None)
    main()
