"""The ensemble that is watched, and the Prometheus that watches it."""

import json
import os
import re
import resource
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

FIRST = int(os.environ.get("FIRST_PORT", "27000"))
CLIENTS, METRICS, ADMIN, PROMETHEUS = FIRST, FIRST + 300, FIRST + 320, FIRST + 350
WARREN, WARREND = os.environ["WARREN"], os.environ["WARREND"]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OPS = os.path.join(ROOT, "ops")
SERVERS = (1, 2, 3)


def eventually(what, holds, within=60):
    """Wait until it holds; its last answer."""
    until = time.monotonic() + within
    while True:
        try:
            if answer := holds():
                return answer
        except (OSError, ValueError):
            pass
        if time.monotonic() > until:
            raise AssertionError(f"it does not come about that {what}")
        time.sleep(0.2)


def page(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


class Fleet:
    """Three servers. `warren local` makes them; later each is a process of ours, with settings of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.local = None
        self.processes = {}

    def start_local(self):
        words = ["--client-port", CLIENTS, "--metrics-port", METRICS, "--admin-port", ADMIN]
        with open(os.path.join(self.folder, "local.log"), "w") as log:
            words = [WARREN, "local", "--dir", os.path.join(self.folder, "e"), *map(str, words)]
            self.local = subprocess.Popen(words, stdout=log, stderr=log)
        eventually("all servers serve", lambda: all(self.serves(id) for id in SERVERS))

    def stop_local(self):
        self.local.send_signal(signal.SIGINT)
        assert self.local.wait(60) == 0
        self.local = None

    def data(self, id):
        return os.path.join(self.folder, "e", str(id))

    def settings(self, id):
        return os.path.join(self.data(id), "warren.toml")

    def tighten(self, text):
        """The same settings for all, with limits that a test can reach."""
        for id in SERVERS:
            with open(self.settings(id)) as file:
                old = file.read()
            with open(self.settings(id), "w") as file:
                file.write(old.replace("[ensemble]\n", text + "[ensemble]\ntick_ms = 50\n"))

    def start(self, id):
        assert id not in self.processes
        with open(os.path.join(self.data(id), "log"), "a") as log:
            words = [WARREND, "--config", self.settings(id)]
            self.processes[id] = subprocess.Popen(words, stdout=log, stderr=log)

    def kill(self, id):
        process = self.processes.pop(id)
        process.kill()
        process.wait()

    def restart(self, id):
        self.kill(id)
        self.start(id)

    def signal(self, id, number):
        self.processes[id].send_signal(number)

    def limit_files(self, id, soft):
        pid = self.processes[id].pid
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

    def serves(self, id):
        return page(f"http://127.0.0.1:{ADMIN + id - 1}/readyz") == "ok\n"

    def is_told(self, id, path, status):
        """Does the AdminServer answer this with that status?"""
        try:
            page(f"http://127.0.0.1:{ADMIN + id - 1}{path}")
            return status == 200
        except urllib.error.HTTPError as e:
            return e.code == status

    def all_serve(self):
        eventually("all servers serve", lambda: all(self.serves(id) for id in SERVERS))

    def figure(self, id, name):
        found = re.search(rf"^{name} (\S+)$", page(f"http://127.0.0.1:{METRICS + id - 1}/metrics"), re.M)
        return float(found[1])

    def leader(self):
        def agreed():
            said = {self.figure(id, "leader_id") for id in SERVERS if id in self.processes or self.local}
            return said.pop() if len(said) == 1 and said != {0} else None

        return int(eventually("the servers agree on a leader", agreed))

    def environment(self, id):
        """What a runbook's commands are given."""
        return {
            "PATH": os.path.dirname(WARREN) + ":/usr/local/bin:/usr/bin:/bin",
            "DATA": self.data(id),
            "METRICS": f"127.0.0.1:{METRICS + id - 1}",
            "ADMIN": f"127.0.0.1:{ADMIN + id - 1}",
        }

    def warren(self, id, *words):
        words = [WARREN, "--data-dir", self.data(id), *words]
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    def end(self):
        if self.local:
            self.local.send_signal(signal.SIGINT)
            self.local.wait(60)
        for process in self.processes.values():
            process.kill()
            process.wait()


class Prometheus:
    """Asks every second. Its rules are ours without their patience: what is tried here is what they look for; how long they
    wait is tried by promtool."""

    def __init__(self, folder):
        self.folder = folder
        with open(os.path.join(OPS, "alerts", "warren.yml")) as file:
            rules = file.read()
        self.alerts = re.findall(r"- alert: (\w+)", rules)
        with open(os.path.join(folder, "rules.yml"), "w") as file:
            file.write(re.sub(r"^\s+for: .*\n", "", rules, flags=re.M))
        targets = ", ".join(f'"127.0.0.1:{METRICS + id - 1}"' for id in SERVERS)
        with open(os.path.join(folder, "prometheus.yml"), "w") as file:
            file.write(
                "global: {scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}\n"
                "rule_files: [rules.yml]\n"
                f"scrape_configs: [{{job_name: warren, static_configs: [{{targets: [{targets}]}}]}}]\n"
            )
        words = [
            "prometheus",
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address=127.0.0.1:{PROMETHEUS}",
        ]
        with open(os.path.join(folder, "prometheus.log"), "w") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)
        self.began = time.time()
        eventually("Prometheus answers", lambda: self.ask("query", query="vector(1)"))

    def ask(self, what, **parameters):
        query = urllib.parse.urlencode(parameters)
        return json.loads(page(f"http://127.0.0.1:{PROMETHEUS}/api/v1/{what}?{query}"))["data"]

    def series(self, expr, step=1):
        """A query over the whole run: for each series its labels and its points."""
        found = self.ask("query_range", query=expr, start=self.began, end=time.time(), step=step)["result"]
        return [
            (one["metric"], [(at, float(value)) for at, value in one["values"] if value != "NaN"]) for one in found
        ]

    def firing(self):
        return [alert for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"]

    def fired(self):
        """Every alert that has fired so far."""
        found = self.ask("series", **{"match[]": 'ALERTS{alertstate="firing"}'})
        return {one["alertname"] for one in found}

    def fires(self, name, within=45):
        """Wait until it fires; the alert."""

        def found():
            return next((alert for alert in self.firing() if alert["labels"]["alertname"] == name), None)

        return eventually(f"{name} fires", found, within)

    def end(self):
        self.process.terminate()
        self.process.wait(30)
