"""Three servers that vote and two that observe, as processes: a client of an observer, and one that accepts to read only.

Every test goes on where the one before it ended.
"""

import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import NotReadOnlyCallError
from kazoo.protocol.states import KeeperState
from kazoo.retry import KazooRetry

from harness import SLOW, Failed, check, raises, same, until

VOTERS = (1, 2, 3)
OBSERVERS = (4, 5)
ALL = VOTERS + OBSERVERS
WARREND = os.environ["WARREND"]
WARREN = os.path.join(os.path.dirname(WARREND), "warren")


def free(kind):
    """A port nobody listens on, below the range the kernel hands out for outgoing connections."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket(socket.AF_INET, kind) as sock:
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Servers:
    def __init__(self, folder):
        self.folder = folder
        self.clients = {server: free(socket.SOCK_STREAM) for server in ALL}
        peers = {server: free(socket.SOCK_DGRAM) for server in ALL}
        self.running = {}
        self.certify("init", "--dir", "ca", "--ensemble", "trial")
        members = "".join(
            f"[[ensemble.server]]\nid = {server}\npeer_addr = '127.0.0.1:{peers[server]}'\n"
            f"client_addr = '127.0.0.1:{self.clients[server]}'\n"
            f"role = '{'voter' if server in VOTERS else 'observer'}'\n"
            for server in ALL
        )
        for server in ALL:
            self.certify("issue", "--dir", "ca", "--server-id", str(server), "--out", f"{server}.pem")
            with open(os.path.join(folder, f"{server}.toml"), "w") as file:
                file.write(
                    f"data_dir = '{folder}/{server}'\n[metrics]\naddr = 'off'\n[storage]\ndisk_reserve_mb = 16\n"
                    f"[sessions]\nread_only = true\n[ensemble]\nname = 'trial'\nserver_id = {server}\n"
                    f"cert = '{folder}/{server}.pem'\nca = '{folder}/ca/ca.pem'\n{members}"
                )

    def certify(self, *arguments):
        subprocess.run([WARREN, "certs", *arguments], cwd=self.folder, check=True, capture_output=True)

    def start(self, server):
        with open(os.path.join(self.folder, f"{server}.log"), "a") as log:
            command = [WARREND, "--config", f"{server}.toml"]
            self.running[server] = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def kill(self, server):
        process = self.running.pop(server)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def word(self, server, text):
        try:
            with socket.create_connection(("127.0.0.1", self.clients[server]), timeout=2) as sock:
                sock.sendall(text.encode())
                parts = []
                while part := sock.recv(65536):
                    parts.append(part)
                return b"".join(parts).decode()
        except OSError:
            return ""

    def mode(self, server):
        lines = [line for line in self.word(server, "srvr").splitlines() if line.startswith("Mode: ")]
        return lines[0].removeprefix("Mode: ") if lines else None

    def leader(self):
        return next((server for server in VOTERS if server in self.running and self.mode(server) == "leader"), None)

    def client(self, *at, **options):
        hosts = ",".join(f"127.0.0.1:{self.clients[server]}" for server in at)
        retry = dict(max_tries=-1, delay=0.05, backoff=1, max_jitter=0.0)
        options.setdefault("connection_retry", KazooRetry(**retry))
        zk = KazooClient(hosts=hosts, timeout=10.0, randomize_hosts=False, **options)
        zk.states = []
        zk.add_listener(zk.states.append)
        zk.start(timeout=20 * SLOW)
        return zk


def observers_serve(servers):
    for server in ALL:
        until(lambda: servers.mode(server), f"server {server} serves", 20)
    same([servers.mode(server) for server in OBSERVERS], ["observer", "observer"])
    one, other = servers.client(OBSERVERS[0]), servers.client(OBSERVERS[1])
    one.create("/a", b"one")
    one.create("/a/mine", ephemeral=True)
    other.sync("/a")
    same(other.get("/a")[0], b"one")
    seen = []
    other.get("/a", watch=seen.append)
    one.set("/a", b"two")
    until(lambda: seen, "the watch fires at the other observer")
    other.sync("/a")
    same(other.get("/a")[0], b"two")
    return one, other


def observers_keep_connections_when_the_leader_dies(servers, one, other):
    del one.states[:], other.states[:]
    leader = until(servers.leader, "there is a leader")
    servers.kill(leader)
    one.set("/a", b"three")
    other.sync("/a")
    same(other.get("/a")[0], b"three")
    check(other.exists("/a/mine"), "the ephemeral outlives the election")
    same((one.states, other.states), ([], []), "changes of connection")
    return leader


def read_only_without_a_quorum(servers, one):
    until(servers.leader, "there is another leader")
    gone = servers.leader()
    servers.kill(gone)
    (left,) = [server for server in VOTERS if server in servers.running]
    reader = servers.client(left, read_only=True)
    same(reader.client_state, KeeperState.CONNECTED_RO)
    same(reader.get("/a")[0], b"three")
    with raises(NotReadOnlyCallError):
        reader.set("/a", b"no")
    with raises(NotReadOnlyCallError):
        reader.create("/b")
    same((servers.word(left, "isro"), servers.mode(left)), ("ro", "read-only"))
    for server in OBSERVERS:
        until(lambda: servers.mode(server) == "read-only", f"observer {server} only reads")
    # Nobody can say any more whether its session is alive.
    until(lambda: KazooState.SUSPENDED in one.states, "the observer lets its client go", 15)
    servers.start(gone)
    until(lambda: reader.client_state == KeeperState.CONNECTED, "the reader may write again", 20)
    reader.set("/a", b"four")
    same((servers.word(left, "isro"), reader.get("/a")[0]), ("rw", b"four"))
    reader.stop()


def everybody_agrees_in_the_end(servers, killed):
    servers.start(killed)
    for server in ALL:
        until(lambda: servers.mode(server) not in (None, "read-only"), f"server {server} serves", 20)
        zk = servers.client(server)
        zk.sync("/a")
        same(zk.get("/a")[0], b"four", f"at server {server}")
        zk.stop()
    same([servers.mode(server) for server in OBSERVERS], ["observer", "observer"])


def main():
    logging.basicConfig(level=logging.CRITICAL)
    folder = tempfile.mkdtemp()
    servers = None
    name = "ensemble"
    try:
        servers = Servers(folder)
        for server in ALL:
            servers.start(server)
        name = "observers_serve"
        one, other = observers_serve(servers)
        print(f"PASS python/{name}", flush=True)
        name = "observers_keep_connections_when_the_leader_dies"
        killed = observers_keep_connections_when_the_leader_dies(servers, one, other)
        print(f"PASS python/{name}", flush=True)
        name = "read_only_without_a_quorum"
        read_only_without_a_quorum(servers, one)
        print(f"PASS python/{name}", flush=True)
        name = "everybody_agrees_in_the_end"
        everybody_agrees_in_the_end(servers, killed)
        print(f"PASS python/{name}", flush=True)
        status = 0
    except Exception as error:
        text = str(error) if isinstance(error, Failed) else repr(error)
        print(f"FAIL python/{name}: {' '.join(text.split())}", flush=True)
        for server in ALL:
            path = os.path.join(folder, f"{server}.log")
            if os.path.exists(path):
                with open(path) as log:
                    print(f"--- server {server}\n{''.join(log.readlines()[-15:])}", file=sys.stderr)
        status = 1
    finally:
        for process in servers.running.values() if servers else ():
            process.send_signal(signal.SIGKILL)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.flush()
    # Threads of clients that look for a server must not keep us.
    os._exit(status)


main()
