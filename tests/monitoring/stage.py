"""Dashboards, alerts and runbooks, tried on a real ensemble. See `run`."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import causes
from fleet import CLIENTS, METRICS, OPS, SERVERS, WARREN, Fleet, Prometheus, eventually
from raw import Client

passed, failed = 0, 0


def case(what, run, *arguments):
    """One line for each case."""
    global passed, failed
    began = time.monotonic()
    try:
        run(*arguments)
        passed += 1
        print(f"PASS monitoring: {what} ({time.monotonic() - began:.1f} s)", flush=True)
        return True
    except Exception as e:
        failed += 1
        print(f"FAIL monitoring: {what}: {e}", flush=True)
        traceback.print_exc()
        return False


class Load:
    """A client of each server that reads, writes and watches, and comes back when it is cut off."""

    def __init__(self):
        self.stopping = threading.Event()
        for id in SERVERS:
            threading.Thread(target=self.run, args=(id,), daemon=True).start()

    def run(self, id):
        n = 0
        while not self.stopping.wait(0.2):
            try:
                client = Client(CLIENTS + id - 1)
                client.create(f"/load-{id}", b"0")
                client.create(f"/ephemeral-{id}", b"0", ephemeral=True)
                while not self.stopping.wait(0.02):
                    n += 1
                    client.watch(f"/load-{id}")
                    client.set(f"/load-{id}", b"%d" % n)
                    client.get(f"/load-{id}")
                client.drop()
            except (OSError, ConnectionError):
                pass


def dashboards():
    for name in sorted(os.listdir(os.path.join(OPS, "dashboards"))):
        with open(os.path.join(OPS, "dashboards", name)) as file:
            yield name, json.load(file)


def differences(ours, theirs, path=""):
    """What of ours the schema does not know: it is lost, or changed, on the way through."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key in theirs:
                yield from differences(value, theirs[key], f"{path}.{key}")
            else:
                yield f"{path}.{key} is unknown"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for n, (one, other) in enumerate(zip(ours, theirs)):
            yield from differences(one, other, f"{path}[{n}]")
    elif ours != theirs:
        yield f"{path}: {ours!r} became {theirs!r}"


def schema():
    from grafana_foundation_sdk.cog import plugins
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    for name, dashboard in dashboards():
        through = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(dashboard)))
        found = list(differences(dashboard, through))
        assert not found, f"{name}: {found[:5]}"


def promtool():
    rules = os.path.join(OPS, "alerts")
    for words in (["check", "rules", "warren.yml"], ["test", "rules", "warren_test.yml"]):
        said = subprocess.run(["promtool", *words], cwd=rules, capture_output=True, text=True)
        assert said.returncode == 0, said.stdout + said.stderr
    with open(os.path.join(rules, "warren_test.yml")) as file:
        tried = set(re.findall(r"name: (\w+) fires", file.read()))
    with open(os.path.join(rules, "warren.yml")) as file:
        assert tried == set(re.findall(r"- alert: (\w+)", file.read())), tried


def queries(dashboard):
    """Title, unit, legend and query of each target, the annotation's left out: nothing fires yet."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel, target


def filled(expr, id):
    instance = f"127.0.0.1:{METRICS + id - 1}"
    return expr.replace("$job", "warren").replace("$instance", instance).replace("$__rate_interval", "15s")


def panels(prometheus):
    """Over the run so far, on one server at least, each query has data that are numbers."""
    silent = []
    for name, dashboard in dashboards():
        for panel, target in queries(dashboard):
            points = (
                value
                for id in SERVERS
                for _, points in prometheus.series(filled(target["expr"], id))
                for _, value in points
            )
            if not any(map(math.isfinite, points)):
                silent.append(f"{name}, {panel['title']}: {target['expr']}")
    assert not silent, silent


def healthy(prometheus):
    fired = [alert["labels"] for alert in prometheus.firing()]
    # Without its patience it takes the first seconds of a run for a trend.
    fired = [labels for labels in fired if labels["alertname"] not in causes.BY_PROMTOOL_ALONE]
    assert not fired, fired


def runbooks(fleet, prometheus):
    """Each alert that fired names its runbook, which is there; its commands run on a server."""
    missing = set(prometheus.alerts) - prometheus.fired() - causes.BY_PROMTOOL_ALONE
    assert not missing, f"did not fire: {missing}"
    rules = prometheus.ask("rules")["groups"]
    named = {rule["name"]: rule["annotations"]["runbook"] for group in rules for rule in group["rules"]}
    environment = fleet.environment(1)
    for alert, words in named.items():
        assert words.startswith("warren runbook "), words
        said = subprocess.run(words.split(), env=environment, capture_output=True, text=True)
        assert said.returncode == 0 and said.stdout.startswith(f"# {alert}\n"), said
        blocks = re.findall(r"^```sh\n(.*?)^```", said.stdout, re.M | re.S)
        for line in "".join(blocks).splitlines():
            ran = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=30)
            # 1 is a server with a complaint.
            fine = ran.returncode == 0 or (ran.returncode == 1 and line.startswith("warren "))
            assert fine and ran.stdout, f"{alert}: `{line}` ended with {ran.returncode}: {ran.stderr}"


def main():
    folder = tempfile.mkdtemp(prefix="warren-monitoring-")
    fleet, prometheus = Fleet(folder), None
    try:
        case("dashboards are as Grafana's schema has them", schema)
        case("promtool takes the rules, and each alert fires at its cause", promtool)
        fleet.start_local()
        prometheus = Prometheus(folder)
        load = Load()
        case("leadership moves", lambda: fleet.warren(fleet.leader(), "leader", "transfer").check_returncode())
        time.sleep(1)
        eventually("requests are counted", lambda: prometheus.series("warren_write_ms_count > 100"))
        eventually("a rate can be told", lambda: time.time() - prometheus.began > 20)
        case("no alert fires on a healthy ensemble", healthy, prometheus)
        fleet.stop_local()
        fleet.tighten(causes.TIGHT)
        for id in SERVERS:
            fleet.start(id)
        fleet.all_serve()
        for what, provoke in causes.CAUSES:
            if os.environ.get("ONLY", "") in what:
                case(f"alerts fire: {what}", provoke, fleet, prometheus)
        case("every panel has had data", panels, prometheus)
        case("every alert fired, and its runbook's commands run", runbooks, fleet, prometheus)
        if sys.argv[1:2] == ["--pictures"]:
            import pictures

            pictures.draw(prometheus, filled, dashboards(), sys.argv[2])
        load.stopping.set()
    except Exception as e:
        case("the stage itself", lambda: (_ for _ in ()).throw(e))
    finally:
        if prometheus:
            prometheus.end()
        fleet.end()
        if failed and os.environ.get("KEEP"):
            print(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
