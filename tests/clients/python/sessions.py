"""Sessions: their end, their life through the server's death, and their clients' reconnection."""

import os
import signal
import socket
import struct
import subprocess
import sys

from kazoo.client import KazooState
from kazoo.protocol.states import EventType

import harness
from harness import Box, check, client, control, same, test, until, vanish


def raw_session(timeout, session=0, password=bytes(16)):
    """Opens a session on a bare socket; gives the socket and (timeout, session, password) of the answer."""
    host, port = harness.SERVERS.rsplit(":", 1)
    sock = socket.create_connection((host, int(port)), timeout=10)
    sock.sendall(struct.pack(">iiqiqi16s?", 45, 0, 0, timeout, session, 16, password, False))
    answer = b""
    while len(answer) < 41:
        part = sock.recv(41 - len(answer))
        check(part, "closed without an answer")
        answer += part
    length, _, timeout, session, size, password, read_only = struct.unpack(">iiiqi16s?", answer)
    same((length, size, read_only), (37, 16, False), "form of the answer")
    return sock, (timeout, session, password)


def raw_create_ephemeral(sock, path):
    """Creates an ephemeral node on a bare socket."""
    path = path.encode()
    body = struct.pack(">iii", 1, 1, len(path)) + path + struct.pack(">ii", 0, 1)
    body += struct.pack(">ii5si6si", 31, 5, b"world", 6, b"anyone", 1)
    sock.sendall(struct.pack(">i", len(body)) + body)
    answer = b""
    while len(answer) < 20:
        answer += sock.recv(4096)
    same(struct.unpack_from(">i", answer, 16)[0], 0, "result of the create")


@test
def timeout_is_negotiated(p):
    for asked, given in ((1, 1000), (1000, 1000), (7777, 7777), (40000, 40000), (900000, 40000)):
        sock, answer = raw_session(asked)
        same(answer[0], given, f"answer to {asked}")
        sock.close()


@test
def silent_session_expires(p):
    """The connection stays open and is never used: the session and its ephemerals end."""
    zk = client()
    zk.create(p)
    sock, (timeout, session, password) = raw_session(1000)
    raw_create_ephemeral(sock, p + "/e")
    gone = Box()
    same(zk.exists(p + "/e", watch=gone).ephemeralOwner, session)
    same(gone.wait(limit=8).type, EventType.DELETED)
    same(sock.recv(1), b"", "the server ends the connection")
    sock.close()
    _, answer = raw_session(1000, session, password)
    same(answer, (0, 0, bytes(16)), "answer for a session that is over")


@test
def lost_connection_keeps_the_session(p):
    zk = client()
    zk.create(p)
    sock, (timeout, session, password) = raw_session(10000)
    raw_create_ephemeral(sock, p + "/e")
    sock.close()
    sock, answer = raw_session(10000, session, password)
    same(answer, (10000, session, password))
    check(zk.exists(p + "/e"))
    sock.close()
    bad, answer = raw_session(10000, session, b"x" * 16)
    same(answer, (0, 0, bytes(16)), "answer to a wrong password")
    bad.close()
    check(zk.exists(p + "/e"), "a wrong password ends nothing")


@test
def closing_ends_the_session_at_once(p):
    zk, other = client(timeout=40), client(timeout=40)
    zk.create(p)
    for i in range(20):
        other.create(f"{p}/{i}", ephemeral=True)
    session, password = other.client_id
    vanish(other)
    same(zk.get_children(p), [])
    _, answer = raw_session(1000, session, password)
    same(answer, (0, 0, bytes(16)))


@test
def stopped_client_sees_expiry(p):
    """A client process is stopped until its session is over, and learns so when it goes on."""
    zk = client()
    zk.create(p)
    child = subprocess.Popen(
        [sys.executable, os.path.join(os.path.dirname(os.path.abspath(__file__)), "sleeper.py"), harness.SERVERS, p + "/e"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        same(child.stdout.readline().strip(), "CONNECTED")
        gone = Box()
        check(zk.exists(p + "/e", watch=gone))
        os.kill(child.pid, signal.SIGSTOP)
        same(gone.wait(limit=10).type, EventType.DELETED)
        os.kill(child.pid, signal.SIGCONT)
        states = []
        while "LOST" not in states or states[-1] != "CONNECTED":
            line = child.stdout.readline().strip()
            check(line, "the client ended:", states)
            states.append(line)
        check("other session" in states, states)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


@test
def pings_keep_the_session(p):
    """A client that does nothing for some timeouts stays."""
    zk, idle = client(), client(timeout=1.0)
    session = idle.client_id
    zk.create(p)
    idle.create(p + "/e", ephemeral=True)
    # Three silent sessions of the same timeout, one after another, are the clock.
    for i in range(3):
        sock, (timeout, _, _) = raw_session(1000)
        same(timeout, 1000)
        same(sock.recv(1), b"", "a silent session ends")
        sock.close()
    check(zk.exists(p + "/e"))
    same(idle.client_id, session)


@test
def second_connection_takes_the_session(p):
    sock, (_, session, password) = raw_session(10000)
    raw_create_ephemeral(sock, p)
    zk = client(client_id=(session, password))
    same(zk.client_id, (session, password))
    same(sock.recv(1), b"", "the first connection ends")
    sock.close()
    same(zk.exists(p).ephemeralOwner, session)


@test
def restart_keeps_sessions_and_ephemerals(p):
    """The server is killed; clients reconnect with their sessions, and all that was answered is there."""
    owner, reader = client(timeout=30), client(timeout=30)
    owner.create(p, b"kept")
    owner.create(p + "/e", b"mine", ephemeral=True)
    sequence = owner.create(p + "/s-", sequence=True)
    for i in range(50):
        owner.create(f"{p}/n{i}", str(i).encode())
    session = owner.client_id
    before = owner.exists(p)
    states = []
    owner.add_listener(states.append)
    control("restart")
    same(owner.retry(owner.exists, p), before, "stat")
    same(owner.client_id, session)
    check(states[0] == KazooState.SUSPENDED and KazooState.LOST not in states, states)
    same(owner.get(p + "/e")[1].ephemeralOwner, session[0])
    same(owner.get(p)[0], b"kept")
    same(len(reader.retry(reader.get_children, p)), 52)
    same(owner.create(p + "/s-", sequence=True)[-10:], f"{52:010d}", f"the sequence goes on after {sequence}")
    vanish(owner)
    same(reader.exists(p + "/e"), None)


@test
def session_expires_while_the_server_is_down_or_after(p):
    """An owner that does not come back after a restart: its ephemeral goes."""
    zk = client(timeout=30)
    zk.create(p)
    sock, (_, session, _) = raw_session(1000)
    raw_create_ephemeral(sock, p + "/e")
    control("kill")
    sock.close()
    control("start")
    gone = Box()
    if zk.retry(zk.exists, p + "/e", watch=gone):
        same(gone.wait(limit=10).type, EventType.DELETED)
    same(zk.exists(p + "/e"), None)


@test
def orderly_stop_keeps_everything(p):
    zk = client(timeout=30)
    zk.create(p, b"kept", ephemeral=True)
    session = zk.client_id
    control("stop")
    until(lambda: not zk.connected, "the client sees the end of the server")
    control("start")
    same(zk.retry(zk.get, p)[0], b"kept")
    same(zk.client_id, session)


@test
def watchers_go_on_after_a_restart(p):
    """DataWatch and ChildrenWatch see what happened, once the server is back."""
    zk, other = client(timeout=30), client(timeout=30)
    zk.create(p, b"0")
    data, names = [], []
    zk.DataWatch(p, lambda value, stat: data.append(value))
    zk.ChildrenWatch(p, lambda children: names.append(sorted(children)))
    until(lambda: data == [b"0"] and names == [[]], "the first calls")
    control("restart")
    other.retry(other.set, p, b"1")
    other.retry(other.create, p + "/c")
    until(lambda: data[-1] == b"1", "the new data")
    until(lambda: names[-1] == ["c"], "the new child")


@test
def authentication_outlives_a_restart(p):
    from kazoo.security import CREATOR_ALL_ACL

    zk = client(timeout=30, auth_data=[("digest", "user:word")])
    zk.create(p, b"mine", acl=CREATOR_ALL_ACL)
    control("restart")
    same(zk.retry(zk.get, p)[0], b"mine")
    zk.set(p, b"still mine")


@test
def new_session_after_losing_one(p):
    """restart() of the client: another session, and the ephemerals of the first are gone."""
    zk = client()
    zk.create(p, ephemeral=True)
    first = zk.client_id
    zk.restart()
    check(zk.client_id[0] != first[0])
    same(zk.exists(p), None)
