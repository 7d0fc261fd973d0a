"""Four-letter words: through the client's command(), and whole, with their form read."""

import re

from harness import check, client, same, test, word

COUNT = r"\d+"


def lines(text):
    return text.rstrip("\n").split("\n")


def parsed(text, separator="="):
    return dict(line.split(separator, 1) for line in lines(text) if separator in line)


@test
def ruok(p):
    same(client().command(b"ruok"), "imok")


@test
def isro(p):
    same(client().command(b"isro"), "rw")


@test
def server_version(p):
    check(client().server_version() >= (3, 9), client().server_version())


@test
def srvr(p):
    zk = client()
    form = (
        r"Zookeeper version: (\S+), built on (.+)\n"
        r"Latency min/avg/max: \d+/\d+(\.\d+)?/\d+\n"
        r"Received: \d+\nSent: \d+\nConnections: (\d+)\nOutstanding: \d+\n"
        r"Zxid: (0x[0-9a-f]+)\nMode: (\w+)\nNode count: (\d+)\n"
    )
    first = re.fullmatch(form, zk.command(b"srvr"))
    check(first, zk.command(b"srvr"))
    check(first[1].startswith("3.9."), first[1])
    same(first[6], "standalone")
    check(int(first[4]) >= 1, "connections")

    def counts_one_create(path):
        before = re.fullmatch(form, zk.command(b"srvr"))
        zk.create(path)
        after = re.fullmatch(form, zk.command(b"srvr"))
        zxid = zk.exists(path).czxid
        check(int(before[5], 16) < zxid <= int(after[5], 16), before[5], hex(zxid), after[5])
        return int(after[5], 16) == int(before[5], 16) + 1 and int(after[7]) == int(before[7]) + 1

    # A session of an earlier test may end in between, which counts as well, but hardly each time.
    check(any(counts_one_create(f"{p}-{i}") for i in range(5)), "one create is one zxid and one node")


@test
def stat(p):
    zk = client()
    text = lines(zk.command(b"stat"))
    check(text[0].startswith("Zookeeper version: 3.9."), text[0])
    same(text[1], "Clients:")
    clients = text[2 : text.index("")]
    check(clients, text)
    for line in clients:
        check(re.fullmatch(r" /127\.0\.0\.1:\d+\[\d+\]\(queued=\d+,recved=\d+,sent=\d+\)", line), line)
    check(text[text.index("") + 1].startswith("Latency min/avg/max: "), text)


@test
def mntr(p):
    zk = client()
    zk.create(p, b"x" * 100, ephemeral=True)
    zk.get(p, watch=print)
    check(zk.command(b"mntr").startswith("zk_version\t3.9."))
    text = lines(word("mntr"))
    for line in text:
        check(re.fullmatch(r"zk_\S+(\{[^}]*\})?\t.*", line), repr(line))
    values = dict(line.split("\t", 1) for line in text)
    same(text[1].split("\t"), ["zk_server_state", "standalone"])
    for name, least in (
        ("znode_count", 6),
        ("watch_count", 1),
        ("ephemerals_count", 1),
        ("approximate_data_size", 100),
        ("num_alive_connections", 1),
        ("packets_received", 1),
        ("packets_sent", 1),
        ("outstanding_requests", 0),
        ("open_file_descriptor_count", 1),
        ("max_file_descriptor_count", 1),
        ("global_sessions", 1),
        ("local_sessions", 0),
        ("uptime", 1),
        ("avg_latency", 0),
        ("min_latency", 0),
        ("max_latency", 0),
    ):
        check("zk_" + name in values, f"zk_{name} is missing")
        check(float(values["zk_" + name]) >= least, name, values["zk_" + name])


@test
def conf(p):
    got = parsed(client().command(b"conf"))
    for name in (
        "clientPort secureClientPort dataDir dataDirSize dataLogDir dataLogSize tickTime maxClientCnxns "
        "minSessionTimeout maxSessionTimeout clientPortListenBacklog serverId"
    ).split():
        check(name in got, f"{name} is missing")
    import harness

    same(got["clientPort"], harness.SERVERS.rsplit(":", 1)[1])
    same((got["tickTime"], got["minSessionTimeout"], got["maxSessionTimeout"]), ("500", "1000", "40000"))


@test
def envi(p):
    text = client().command(b"envi")
    same(lines(text)[0], "Environment:")
    got = parsed(text)
    check(got["zookeeper.version"].startswith("3.9."), got)
    check(got["host.name"] and got["os.name"], got)


@test
def cons(p):
    zk = client()
    zk.create(p)
    zk.sync(p)
    session = "0x%x" % (zk.client_id[0] & (2**64 - 1))
    text = word("cons")
    check(text.endswith("\n\n"), repr(text[-20:]))
    ours = [line for line in lines(text) if f"sid={session}," in line]
    same(len(ours), 1, f"lines with {session}")
    form = (
        r" /127\.0\.0\.1:\d+\[\d+\]\(queued=\d+,recved=(\d+),sent=(\d+),sid=0x[0-9a-f]+,lop=(\w+),est=\d+,to=10000,"
        r"lcxid=0x[0-9a-f]+,lzxid=0x[0-9a-f]+,lresp=\d+,llat=\d+,minlat=\d+,avglat=\d+,maxlat=\d+\)"
    )
    got = re.fullmatch(form, ours[0])
    check(got, ours[0])
    same(got[3], "SYNC", "last operation")
    check(int(got[1]) >= 3 and int(got[2]) >= 3, ours[0])


@test
def watch_words(p):
    zk = client()
    zk.create(p)
    zk.get(p, watch=print)
    session = "0x%x" % (zk.client_id[0] & (2**64 - 1))
    check(re.fullmatch(r"\d+ connections watching \d+ paths\nTotal watches:\d+\n+", word("wchs")), word("wchs"))
    check(f"{session}\n\t{p}\n" in word("wchc"), word("wchc"))
    check(f"{p}\n\t{session}\n" in word("wchp"), word("wchp"))


@test
def dump(p):
    zk = client()
    zk.create(p, ephemeral=True)
    session = "0x%x" % (zk.client_id[0] & (2**64 - 1))
    text = word("dump")
    check(text.startswith("SessionTracker dump:\n"), text)
    check("ephemeral nodes dump:\n" in text, text)
    check(f"{session}:\n\t{p}\n" in text, text)


@test
def dirs(p):
    check(re.fullmatch(r"datadir_size: \d+\nlogdir_size: \d+\n", word("dirs")), word("dirs"))


@test
def resets(p):
    zk = client()
    zk.create(p)
    same(word("srst").strip(), "Server stats reset.")
    same(word("crst").strip(), "Connection stats reset.")
    check(zk.exists(p), "the connections stay")


@test
def a_word_after_a_half_close(p):
    """The asker may close its side at once."""
    import socket

    import harness

    host, port = harness.SERVERS.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as sock:
        sock.sendall(b"ruok")
        sock.shutdown(socket.SHUT_WR)
        same(sock.recv(100), b"imok")
        same(sock.recv(100), b"", "then the server closes")
