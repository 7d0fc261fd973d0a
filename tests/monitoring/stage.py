"""Dashboards, alerts and runbooks, tried on a real ensemble. See `run`."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import urllib.error
import urllib.request

import causes
from fleet import ADMIN, CLIENTS, METRICS, OPS, SERVERS, WARREN, Fleet, Prometheus, eventually
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

    def all_speak():
        silent[:] = silent_panels(prometheus)
        return not silent

    try:
        # What came last is told a moment later.
        eventually("every panel speaks", all_speak, 10)
    except AssertionError:
        raise AssertionError(silent) from None


def silent_panels(prometheus):
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
    return silent


def healthy(prometheus):
    """Without their patience the rules take a follower that is late once for one that is down, and the first seconds of a run for
    a trend. What is wrong stays; what only looked so is gone after a scrape or two."""
    fired = []

    def nothing_fires():
        fired[:] = [alert["labels"] for alert in prometheus.firing()]
        fired[:] = [labels for labels in fired if labels["alertname"] not in causes.BY_PROMTOOL_ALONE]
        return not fired

    try:
        eventually("nothing fires", nothing_fires, 20)
    except AssertionError:
        raise AssertionError(fired) from None


def admin(id, path):
    """An answer's status and body."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ADMIN + id - 1}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as e:
        return e.code, e.read().decode()


def admin_server(fleet):
    """Every command answers on every server, and nobody changes anything."""
    leader = fleet.leader()
    for id in SERVERS:
        commands = re.findall(r'href="(/commands/\w+)"', admin(id, "/commands")[1])
        assert len(commands) == 28, commands
        told = {command.rsplit("/", 1)[1]: admin(id, command) for command in commands}
        for name, (status, body) in told.items():
            answer = json.loads(body)
            assert answer["command"] == name, (name, body)
            if name in ("snapshot", "restore"):
                assert status == 503 and "warren backup" in answer["error"], (name, body)
            elif name.endswith("_reset") or name == "set_trace_mask":
                assert status == 200 and "whitelist" in answer["error"], (name, body)
            else:
                assert status == 200 and answer["error"] is None, (name, body)
        told = {name: json.loads(body) for name, (_, body) in told.items()}
        assert told["leader"]["leader_id"] == leader
        assert told["leader"]["is_leader"] == told["zabstate"]["is_leader"] == (id == leader)
        assert set(told["voting_view"]["current_config"]) == {"1", "2", "3"}
        assert f"/ephemeral-{id}" in str(told["dump"]["session_id_to_ephemeral_paths"])
        assert bool(told["dump"]["expiry_time_to_session_ids"]) == (id == leader)
        assert told["monitor"]["server_state"] == ("leader" if id == leader else "follower")
        assert told["connections"]["connections"] and told["server_stats"]["node_count"] > 5
    digests = [json.loads(admin(id, "/commands/hash")[1])["digests"] for id in SERVERS]
    by_zxid = [{digest["zxid"]: digest["digest"] for digest in all} for all in digests]
    common = set.intersection(*map(set, by_zxid))
    assert common and all(len({all[zxid] for all in by_zxid}) == 1 for zxid in common), "digests differ"
    assert [admin(1, path)[0] for path in ("/livez", "/readyz", "/nothing", "/commands/nothing")] == [200, 200, 404, 200]


def admin_server_is_bounded(fleet):
    """What a stranger sends costs little, and others are answered."""

    def sent(data):
        with socket.create_connection(("127.0.0.1", ADMIN), timeout=20) as sock:
            try:
                sock.sendall(data)
                return sock.recv(100)
            except ConnectionError:
                return b""

    assert b" 400 " in sent(b"\xff\x00 nonsense\r\n\r\n")
    assert b" 431 " in sent(b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000)
    assert b" 405 " in sent(b"DELETE /commands/ruok HTTP/1.1\r\nhost: x\r\n\r\n")
    silent = [socket.create_connection(("127.0.0.1", ADMIN), timeout=20) for _ in range(32)]
    # One more is closed at once, and the silent ones when their time is over.
    eventually("no place is left", lambda: sent(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n") == b"", 4)
    for sock in silent:
        sock.recv(1000)
        sock.close()
    eventually("it answers again", lambda: admin(1, "/livez")[0] == 200, 5)


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
        case("the AdminServer answers every command, and changes nothing", admin_server, fleet)
        case("the AdminServer bounds what strangers cost", admin_server_is_bounded, fleet)
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
