"""What makes each alert fire. A cause is provoked on the running ensemble, and undone."""

import os
import shutil
import signal
import subprocess
import time

from fleet import CLIENTS, SERVERS, WARREN, eventually
from raw import Client

# Fires only after hours, on a disk that is slow or lacks its last byte (`tests/disk` makes one), on a tree that went bad (`operate`
# makes one), or behind a certificate or a lag that cannot be made in minutes: promtool tries these alone.
BY_PROMTOOL_ALONE = {
    "WarrenTreeDiffers",
    "WarrenDigestsMismatch",
    "WarrenDiskFillsUp",
    "WarrenDiskWaiting",
    "WarrenSlowDisk",
    "WarrenCertificateEnds",
    "WarrenServerLags",
}

# Limits that a test can reach.
TIGHT = """[sessions]
tick_ms = 500
timeout_ms_min = 1000
[client]
connections_max = 40
[limits]
sessions_max = 50
watches_max = 50
outstanding_max = 20
[storage]
disk_reserve_mb = 64
segment_mb = 8

"""

AS_ROOT = [] if os.geteuid() == 0 else ["sudo"]


def port(id):
    return CLIENTS + id - 1


def others(fleet, id):
    return [other for other in SERVERS if other != id]


def restarts(fleet, prometheus):
    for _ in range(3):
        fleet.restart(3)
        fleet.all_serve()
        # The start is told in whole seconds, and Prometheus must have seen each.
        seen = fleet.figure(3, "process_start_time_seconds")
        query = 'process_start_time_seconds{instance=~".*2"}'
        eventually(
            "the start is seen",
            lambda: any(float(one["value"][1]) == seen for one in prometheus.ask("query", query=query)["result"]),
        )
        eventually("the next start is told apart", lambda: time.time() > seen + 1)
    prometheus.fires("WarrenRestarts")


def a_follower_dies(fleet, prometheus):
    gone = others(fleet, fleet.leader())[0]
    fleet.kill(gone)
    for name in ("WarrenServerDown", "WarrenFollowerNotSynced", "WarrenLinkDown"):
        prometheus.fires(name)
    fleet.start(gone)
    fleet.all_serve()


def the_followers_stand_still(fleet, prometheus):
    leader = fleet.leader()
    still = others(fleet, leader)
    short, patient = Client(port(leader), 1500), Client(port(leader), 40000)
    assert patient.create("/waits") in (0, -110)
    for id in still:
        fleet.signal(id, signal.SIGSTOP)
    try:
        for _ in range(20):
            patient.submit(5, patient.set_body("/waits", b"x"))
        for name in ("WarrenRequestsWait", "WarrenNoLeader", "WarrenServerCutOff", "WarrenSessionsCutOff"):
            prometheus.fires(name)
        # To send clients there, or to restart it, would help nobody.
        for path, status in (("/readyz", 503), ("/livez", 200)):
            eventually(f"{path} is {status}", lambda: fleet.is_told(leader, path, status), 10)
    finally:
        for id in still:
            fleet.signal(id, signal.SIGCONT)
    fleet.all_serve()
    short.drop()
    patient.drop()


def writes_are_slow(fleet, prometheus):
    """The followers pause again and again, each time for less than it takes to look for another leader."""

    def fires():
        leader = fleet.leader()
        client = Client(port(leader), 20000)
        client.create("/slow")
        still = others(fleet, leader)
        for id in still:
            fleet.signal(id, signal.SIGSTOP)
        for _ in range(15):
            client.submit(5, client.set_body("/slow", b"x"))
        time.sleep(0.8)
        for id in still:
            fleet.signal(id, signal.SIGCONT)
        for _ in range(15):
            client.answer()
        client.drop()
        return "WarrenSlowWrites" in {alert["labels"]["alertname"] for alert in prometheus.firing()}

    eventually("WarrenSlowWrites fires", fires, 40)


def leaders_change(fleet, prometheus):
    def fires():
        leader = fleet.leader()
        fleet.warren(leader, "leader", "transfer")
        return "WarrenLeaderChanges" in {alert["labels"]["alertname"] for alert in prometheus.firing()}

    eventually("WarrenLeaderChanges fires", fires, 60)
    fleet.all_serve()


def many_clients(fleet, prometheus):
    first, second = others(fleet, fleet.leader())
    clients = []
    eventually("the sessions of former clients are gone", lambda: fleet.figure(first, "global_sessions") < 8)
    try:
        # The load and the words have connections of their own.
        while len(clients) < 38 and fleet.figure(first, "num_alive_connections") < 37:
            clients.append(Client(port(first), 8000))
        prometheus.fires("WarrenConnectionsNearLimit")
        for _ in range(6):
            try:
                clients.append(Client(port(first), 8000))
            except OSError:
                pass
        prometheus.fires("WarrenConnectionsRejected")
        for client in clients:
            client.ping()
        for _ in range(8):
            clients.append(Client(port(second), 8000))
        prometheus.fires("WarrenSessionsNearLimit")
        for n in range(45):
            clients[0].watch(f"/nobody-{n}")
        prometheus.fires("WarrenWatchesNearLimit")
    finally:
        for client in clients:
            client.drop()
    prometheus.fires("WarrenSessionsExpire")


def few_files(fleet, prometheus):
    fleet.limit_files(1, int(fleet.figure(1, "open_file_descriptor_count")) + 4)
    try:
        prometheus.fires("WarrenFileDescriptorsNearLimit")
    finally:
        fleet.limit_files(1, 1024)


def wrong_passwords(fleet, prometheus):
    for _ in range(14):
        client = Client(port(1), 8000)
        client.authenticate_wrongly()
        client.drop()
    prometheus.fires("WarrenAuthFailures")


def a_broken_certificate(fleet, prometheus):
    path = os.path.join(fleet.data(2), "server.pem")
    with open(path, "rb") as file:
        right = file.read()
    with open(path, "wb") as file:
        file.write(b"no certificate\n")
    fleet.signal(2, signal.SIGHUP)
    try:
        prometheus.fires("WarrenCertificateUnusable")
    finally:
        with open(path, "wb") as file:
            file.write(right)
        fleet.signal(2, signal.SIGHUP)


def a_stranger(fleet, prometheus):
    """A server with a certificate of another authority of the same name."""
    ca, path = os.path.join(fleet.folder, "other-ca"), os.path.join(fleet.data(3), "server.pem")
    kept = path + ".kept"
    shutil.copy2(path, kept)
    with open(fleet.settings(3)) as file:
        settings = file.read()
    for words in (["init", "--ensemble", "local"], ["issue", "--server-id", "3", "--out", path + ".new"]):
        subprocess.run([WARREN, "certs", words[0], "--dir", ca, *words[1:]], check=True, capture_output=True)
    fleet.kill(3)
    os.replace(path + ".new", path)
    with open(fleet.settings(3), "w") as file:
        file.write(settings.replace("/e/ca/ca.pem", "/other-ca/ca.pem"))
    fleet.start(3)
    try:
        prometheus.fires("WarrenPeersRefused")
    finally:
        os.replace(kept, path)
        with open(fleet.settings(3), "w") as file:
            file.write(settings)
        fleet.restart(3)
    fleet.all_serve()


def alone_after_a_restart(fleet, prometheus):
    for id in SERVERS:
        fleet.kill(id)
    fleet.start(1)
    prometheus.fires("WarrenNotServing")
    fleet.start(2)
    fleet.start(3)
    fleet.all_serve()


def an_old_backup(fleet, prometheus):
    with open(os.path.join(fleet.data(1), "last-backup.json"), "w") as file:
        file.write('{"time_ms": %d, "file_bytes": 5}' % ((time.time() - 31 * 3600) * 1000))
    fleet.restart(1)
    fleet.all_serve()
    prometheus.fires("WarrenBackupTooOld")
    # Of another server, whose first one fails: there is no such folder.
    assert fleet.warren(2, "backup", "--out", os.path.join(fleet.folder, "nowhere", "x")).returncode == 1
    eventually("the failure is counted", lambda: fleet.figure(2, "warren_backups_failed_total") == 1)
    said = fleet.warren(2, "backup", "--out", os.path.join(fleet.folder, "x"))
    assert said.returncode == 0, said.stderr

    def firing():
        return "WarrenBackupTooOld" in {alert["labels"]["alertname"] for alert in prometheus.firing()}

    eventually("WarrenBackupTooOld fires no more", lambda: not firing())


def a_full_disk(fleet, prometheus):
    folder, aside = fleet.data(3), os.path.join(fleet.folder, "aside")
    filler = os.path.join(folder, "filler")
    fleet.kill(3)
    shutil.copytree(folder, aside, ignore=shutil.ignore_patterns("*.sock*", "reserve"))
    options = f"size=300m,mode=700,uid={os.geteuid()}"
    subprocess.run([*AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "warren-monitoring", folder], check=True)
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        fleet.start(3)
        fleet.all_serve()
        if fleet.leader() == 3:
            fleet.warren(3, "leader", "transfer")
            eventually("another one leads", lambda: fleet.leader() != 3)
        free = shutil.disk_usage(folder).free
        subprocess.run(["fallocate", "-l", str(free - (40 << 20)), filler], check=True)
        prometheus.fires("WarrenDiskBelowReserve")
        # It refuses what would grow data, but not what the leader sends, and keeps the log short by checkpoints.
        client = Client(port(fleet.leader()), 20000)
        client.create("/large")

        def checkpoint():
            client.set("/large", b"x" * 200_000)
            return prometheus.ask("query", query="increase(snapshottime_count[10s]) > 0")["result"]

        eventually("a checkpoint is made", checkpoint)
        client.drop()
        os.remove(filler)
        fleet.all_serve()
    finally:
        if 3 in fleet.processes:
            fleet.kill(3)
        subprocess.run([*AS_ROOT, "umount", "-l", folder], check=False)


# In this order: the last ones leave the ensemble in pieces.
CAUSES = [
    ("a server that is started again and again", restarts),
    ("a follower that dies", a_follower_dies),
    ("wrong passwords", wrong_passwords),
    ("files that run out", few_files),
    ("a certificate that cannot be used", a_broken_certificate),
    ("a stranger among the servers", a_stranger),
    ("clients that are too many, and leave without a word", many_clients),
    ("backups that are too old", an_old_backup),
    ("leaders that change", leaders_change),
    ("slow writes", writes_are_slow),
    ("followers that stand still", the_followers_stand_still),
    ("a server that comes up alone", alone_after_a_restart),
    ("a disk that fills up", a_full_disk),
]
