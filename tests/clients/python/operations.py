"""Every operation of the client, its results and its errors."""

import threading

import kazoo.exceptions as ex
from kazoo.protocol.states import EventType
from kazoo.security import ACL, CREATOR_ALL_ACL, Id, OPEN_ACL_UNSAFE, make_acl, make_digest_acl

from harness import Box, check, client, raises, same, test, until, vanish

READ_ACL = [ACL(1, Id("world", "anyone"))]


@test
def create_and_stat(p):
    zk = client()
    same(zk.create(p, b"one"), p, "path")
    data, stat = zk.get(p)
    same(data, b"one", "data")
    same((stat.version, stat.cversion, stat.aversion), (0, 0, 0), "versions")
    same((stat.ephemeralOwner, stat.dataLength, stat.numChildren), (0, 3, 0), "owner, length, children")
    same(stat.czxid, stat.mzxid, "mzxid of a new node")
    same(stat.czxid, stat.pzxid, "pzxid of a new node")
    same(stat.ctime, stat.mtime, "mtime of a new node")
    check(stat.czxid > 0 and stat.ctime > 1_600_000_000_000, stat)


@test
def create_with_data_and_stat(p):
    zk = client()
    path, stat = zk.create(p, b"four", include_data=True)
    same(path, p)
    same(stat, zk.exists(p), "stat of the reply")
    path, stat = zk.create(p + "/s-", b"", sequence=True, ephemeral=True, include_data=True)
    same(path, p + "/s-0000000000")
    same(stat.ephemeralOwner, zk.client_id[0], "owner")


@test
def create_errors(p):
    zk = client()
    zk.create(p)
    with raises(ex.NodeExistsError):
        zk.create(p)
    with raises(ex.NoNodeError):
        zk.create(p + "/no/child")
    zk.create(p + "/e", ephemeral=True)
    with raises(ex.NoChildrenForEphemeralsError):
        zk.create(p + "/e/child")
    with raises(ex.NodeExistsError):
        zk.create("/")
    for bad in ("/bad\x01", "/bad\x7f", "/bad\ufff1"):
        with raises(ex.BadArgumentsError):
            zk.create(p + bad)
    with raises(ex.InvalidACLError):
        zk.create(p + "/acl", acl=[ACL(31, Id("nosuch", "x"))])
    with raises(ex.InvalidACLError):
        zk.create_async(p + "/acl", acl=[]).get(timeout=5)
    with raises(ex.InvalidACLError):
        zk.create(p + "/acl", acl=CREATOR_ALL_ACL)  # nobody has logged in
    same(zk.get_children(p), ["e"])


@test
def create_makepath(p):
    zk = client()
    same(zk.create(p + "/a/b/c", b"x", makepath=True), p + "/a/b/c")
    same(zk.get(p + "/a")[0], b"")
    check(zk.ensure_path(p + "/a/d/e"))
    check(zk.ensure_path(p + "/a/d/e"), "a second time")
    same(sorted(zk.get_children(p + "/a")), ["b", "d"])
    same(zk.create(p + "/q/n-", sequence=True, makepath=True), p + "/q/n-0000000000")


@test
def create_sequence(p):
    zk = client()
    zk.create(p)
    same(zk.create(p + "/", sequence=True), p + "/0000000000")
    same(zk.create(p + "/x", sequence=True), p + "/x0000000001")
    zk.create(p + "/plain")  # counts as well
    same(zk.create(p + "/x", sequence=True, ephemeral=True), p + "/x0000000003")
    zk.delete(p + "/x0000000003")  # deleting does not take it back
    same(zk.create(p + "/y", sequence=True), p + "/y0000000004")
    stat = zk.exists(p)
    same((stat.cversion, stat.numChildren, stat.version), (6, 4, 0), "cversion, children, version")


@test
def ephemeral_ends_with_its_session(p):
    zk, other = client(), client()
    zk.create(p)
    other.create(p + "/e", b"mine", ephemeral=True)
    same(zk.exists(p + "/e").ephemeralOwner, other.client_id[0], "owner")
    gone = Box()
    check(zk.exists(p + "/e", watch=gone))
    vanish(other)
    same((gone.wait().type, gone.wait().path), (EventType.DELETED, p + "/e"))
    same(zk.get_children(p), [])


@test
def set_and_versions(p):
    zk = client()
    zk.create(p, b"0")
    first = zk.exists(p)
    stat = zk.set(p, b"one")
    same((stat.version, stat.dataLength), (1, 3))
    check(stat.mzxid > first.mzxid and stat.czxid == first.czxid and stat.pzxid == first.pzxid, stat)
    same(zk.set(p, b"two", version=1).version, 2)
    with raises(ex.BadVersionError):
        zk.set(p, b"three", version=1)
    with raises(ex.NoNodeError):
        zk.set(p + "/no", b"")
    same(zk.get(p)[0], b"two")


@test
def delete_and_versions(p):
    zk = client()
    zk.create(p)
    zk.create(p + "/c")
    with raises(ex.NotEmptyError):
        zk.delete(p)
    with raises(ex.BadVersionError):
        zk.delete(p + "/c", version=1)
    before = zk.exists(p)
    zk.delete(p + "/c", version=0)
    after = zk.exists(p)
    check(after.pzxid > before.pzxid and after.mzxid == before.mzxid, before, after)
    same((after.cversion, after.numChildren), (2, 0))
    with raises(ex.NoNodeError):
        zk.delete(p + "/c")
    zk.create(p + "/a/b/c", makepath=True)
    zk.delete(p, recursive=True)
    same(zk.exists(p), None)
    with raises(ex.BadArgumentsError):
        zk.delete("/zookeeper")


@test
def exists_and_get_errors(p):
    zk = client()
    same(zk.exists(p), None)
    with raises(ex.NoNodeError):
        zk.get(p)
    with raises(ex.NoNodeError):
        zk.get_children(p)
    with raises(ex.NoNodeError):
        zk.get_acls(p)


@test
def children(p):
    zk = client()
    zk.create(p, b"data")
    names = {f"n{i}" for i in range(50)}
    for name in names:
        zk.create(f"{p}/{name}")
    same(set(zk.get_children(p)), names)
    listed, stat = zk.get_children(p, include_data=True)
    same(set(listed), names)
    same((stat.numChildren, stat.cversion, stat.dataLength), (50, 50, 4))
    check("zookeeper" in zk.get_children("/"))
    same(sorted(zk.get_children("/zookeeper")), ["config", "quota"])


@test
def null_and_empty_data(p):
    zk = client()
    zk.create(p, None)
    data, stat = zk.get(p)
    same((data, stat.dataLength), (None, 0))
    zk.create(p + "/empty", b"")
    same(zk.get(p + "/empty")[0], b"")
    zk.set(p + "/empty", None)
    same(zk.get(p + "/empty")[0], None)
    same(zk.set(p, b"").dataLength, 0)
    same(zk.get(p)[0], b"")


@test
def large_data(p):
    zk = client()
    large = bytes(range(256)) * 3900  # 998 400 bytes
    zk.create(p, large)
    same(zk.get(p)[0] == large, True, "data of create")
    same(zk.set(p, large[::-1]).dataLength, len(large))
    same(zk.get(p)[0] == large[::-1], True, "data of set")
    session = zk.client_id[0]
    once = client(command_retry=None, connection_retry=None)
    with raises(ex.ConnectionLoss):  # a request over jute.maxbuffer ends the connection
        once.set(p, b"x" * 1_100_000)
    same(zk.get(p)[1].version, 1, "version after the refused request")
    same(zk.client_id[0], session)


@test
def names_of_many_scripts(p):
    zk = client()
    zk.create(p)
    for name in ("ä", "中文", "with space", "a.b", "...", "-", "%41", "e\u0301", "\ufb01"):
        same(zk.create(f"{p}/{name}", name.encode()), f"{p}/{name}")
        same(zk.get(f"{p}/{name}")[0], name.encode())
    same(len(zk.get_children(p)), 9)


@test
def acls(p):
    zk = client()
    zk.create(p)
    got, stat = zk.get_acls(p)
    same((got, stat.aversion), (OPEN_ACL_UNSAFE, 0))
    stat = zk.set_acls(p, READ_ACL + [make_acl("world", "anyone", admin=True)])
    same((stat.aversion, stat.version), (1, 0))
    with raises(ex.NoAuthError):
        zk.set(p, b"")
    with raises(ex.NoAuthError):
        zk.create(p + "/c")
    with raises(ex.BadVersionError):
        zk.set_acls(p, OPEN_ACL_UNSAFE, version=0)
    same(zk.set_acls(p, OPEN_ACL_UNSAFE, version=1).aversion, 2)
    with raises(ex.InvalidACLError):
        zk.set_acls(p, [ACL(31, Id("digest", "no-colon"))])
    with raises(ex.NoNodeError):
        zk.set_acls(p + "/no", OPEN_ACL_UNSAFE)
    zk.set(p, b"open again")


@test
def digest_authentication(p):
    zk, owner = client(), client()
    acl = make_digest_acl("user", "word", all=True)
    zk.create(p, b"secret", acl=[acl])
    for refused in (zk.get, zk.exists, zk.get_children, zk.get_acls, lambda path: zk.set(path, b"")):
        with raises(ex.NoAuthError):
            refused(p)
    check(owner.add_auth("digest", "user:word"))
    same(owner.get(p)[0], b"secret")
    same(owner.get_acls(p)[0], [acl])
    owner.create(p + "/c", acl=CREATOR_ALL_ACL)  # becomes the ids that are logged in
    same(owner.get_acls(p + "/c")[0], [acl])
    with raises(ex.NoAuthError):
        zk.delete(p + "/c")  # the right to delete is the parent's
    owner.set_acls(p + "/c", [acl, READ_ACL[0]])
    same(zk.get_acls(p + "/c")[0][0].id.id, "user:x", "the digest is shown to an administrator only")
    other = client(auth_data=[("digest", "user:wrong")])
    with raises(ex.NoAuthError):
        other.get(p)
    later = client(auth_data=[("digest", "user:word")])
    same(later.get(p)[0], b"secret")
    owner.delete(p, recursive=True)


@test
def super_user(p):
    zk, root = client(), client()
    zk.create(p, b"secret", acl=[make_digest_acl("nobody", "nothing", read=True)])
    with raises(ex.NoAuthError):
        zk.get(p)
    check(root.add_auth("digest", "super:secret"))
    same(root.get(p)[0], b"secret")
    root.set(p, b"written")
    check(root.get_acls(p)[0][0].id.id.startswith("nobody:") and not root.get_acls(p)[0][0].id.id.endswith(":x"))
    root.delete(p)
    notroot = client()
    check(notroot.add_auth("digest", "super:guess"))
    zk.create(p, acl=[make_digest_acl("nobody", "nothing", read=True)])
    with raises(ex.NoAuthError):
        notroot.set(p, b"")


@test
def address_acl(p):
    zk = client()
    zk.create(p, b"near", acl=[make_acl("ip", "127.0.0.0/8", all=True)])
    same(zk.get(p)[0], b"near")
    zk.create(p + "/far", b"far", acl=[make_acl("ip", "10.1.2.3", all=True)])
    with raises(ex.NoAuthError):
        zk.get(p + "/far")


@test
def failed_authentication(p):
    zk = client(connection_retry=None)
    with raises(ex.AuthFailedError):
        zk.add_auth("nosuch", "x")
    until(lambda: not zk.connected, "the connection ends")


@test
def transaction_succeeds(p):
    zk = client()
    zk.create(p, b"old")
    t = zk.transaction()
    t.check(p, 0)
    t.create(p + "/a", b"1")
    t.create(p + "/s-", b"", sequence=True)
    t.create(p + "/e", ephemeral=True)
    t.set_data(p, b"new", version=0)
    t.create(p + "/a/b")
    t.delete(p + "/a/b")
    got = t.commit()
    same([got[i] for i in (0, 1, 2, 3, 5, 6)], [True, p + "/a", p + "/s-0000000001", p + "/e", p + "/a/b", True])
    same((got[4].version, got[4].dataLength, got[4].numChildren), (1, 3, 3))
    zxids = {zk.exists(p + "/a").czxid, zk.exists(p + "/e").czxid, zk.exists(p).mzxid, got[4].mzxid}
    same(len(zxids), 1, "one zxid for all")
    same(sorted(zk.get_children(p)), ["a", "e", "s-0000000001"])


@test
def transaction_fails(p):
    zk = client()
    zk.create(p, b"old")
    t = zk.transaction()
    t.create(p + "/a")
    t.check(p, 0)
    t.set_data(p, b"new", version=7)
    t.create(p + "/b")
    t.delete(p + "/no")
    got = t.commit()
    same(
        [type(r) for r in got],
        [ex.RolledBackError, ex.RolledBackError, ex.BadVersionError, ex.RuntimeInconsistency, ex.RuntimeInconsistency],
    )
    same(zk.get_children(p), [])
    same(zk.get(p)[0], b"old")
    t = zk.transaction()
    t.check(p + "/no", -1)
    same([type(r) for r in t.commit()], [ex.NoNodeError])
    t = zk.transaction()
    t.create(p + "/s-", sequence=True)
    t.create(p)
    same([type(r) for r in t.commit()], [ex.RolledBackError, ex.NodeExistsError])
    same(zk.create(p + "/s-", sequence=True), p + "/s-0000000000", "the counter is taken back")


@test
def transaction_of_an_ephemeral_with_null_data(p):
    """How brokers register: create with null data, then set it, and read the second result."""
    from kazoo.protocol.serialization import Create

    zk = client()
    t = zk.transaction()
    t._add(Create(p, None, OPEN_ACL_UNSAFE, 1), None)  # its create() takes no null data
    t.set_data(p, b"broker", version=0)
    created, stat = t.commit()
    same((created, stat.version, stat.ephemeralOwner), (p, 1, zk.client_id[0]))


@test
def transaction_is_empty(p):
    same(client().transaction().commit(), [])


@test
def transaction_needs_rights(p):
    zk = client()
    zk.create(p, acl=READ_ACL)
    t = zk.transaction()
    t.check(p, 0)
    t.create(p + "/c")
    same([type(r) for r in t.commit()], [ex.RolledBackError, ex.NoAuthError])


@test
def sync(p):
    writer, reader = client(), client()
    writer.create(p, b"0")
    for i in range(20):
        writer.set(p, str(i).encode())
        same(reader.sync(p), p)
        same(reader.get(p)[0], str(i).encode())
    same(reader.sync(p + "/no"), p + "/no", "a node need not be there")


@test
def pipeline_keeps_order(p):
    zk = client()
    zk.create(p)
    calls = []
    for i in range(300):
        calls.append((i, zk.create_async(f"{p}/n-", str(i).encode(), sequence=True)))
        if i % 3 == 0:
            calls.append((None, zk.get_children_async(p)))
    seen = 0
    for i, call in calls:
        value = call.get(timeout=10)
        if i is None:
            same(len(value), seen, "a read sees the writes before it")
        else:
            same(value, f"{p}/n-{i:010d}")
            seen += 1


@test
def asynchronous_forms(p):
    zk = client()
    same(zk.create_async(p, b"a").get(timeout=5), p)
    check(zk.ensure_path_async(p + "/x/y").get(timeout=5))
    same(zk.set_async(p, b"b").get(timeout=5).version, 1)
    same(zk.get_async(p).get(timeout=5)[0], b"b")
    same(zk.exists_async(p + "/no").get(timeout=5), None)
    same(zk.get_children_async(p, include_data=True).get(timeout=5)[0], ["x"])
    same(zk.get_acls_async(p).get(timeout=5)[0], OPEN_ACL_UNSAFE)
    same(zk.set_acls_async(p, OPEN_ACL_UNSAFE).get(timeout=5).aversion, 1)
    same(zk.sync_async(p).get(timeout=5), p)
    t = zk.transaction()
    t.delete(p + "/x/y")
    t.delete(p + "/x")
    same(t.commit_async().get(timeout=5), [True, True])
    check(zk.delete_async(p).get(timeout=5))
    with raises(ex.NoNodeError):
        zk.delete_async(p).get(timeout=5)
    check(zk.add_auth_async("digest", "a:b").get(timeout=5))


@test
def watch_data(p):
    zk, other = client(), client()
    zk.create(p, b"0")
    box = Box()
    zk.get(p, watch=box)
    other.set(p, b"1")
    event = box.wait()
    same((event.type, event.path, event.state), (EventType.CHANGED, p, "CONNECTED"))
    other.set(p, b"2")
    other.create(p + "/c")
    zk.get(p, watch=box)
    other.delete(p, recursive=True)
    box.wait(2)
    same(box.seen(), [(EventType.CHANGED, p), (EventType.DELETED, p)])


@test
def watch_children(p):
    zk, other = client(), client()
    zk.create(p)
    box = Box()
    zk.get_children(p, watch=box)
    other.set(p, b"no event for the watcher of children")
    other.create(p + "/a")
    box.wait()
    zk.get_children(p, watch=box)
    other.delete(p + "/a")
    box.wait(2)
    zk.get_children(p, watch=box, include_data=True)
    other.delete(p)
    box.wait(3)
    same(box.seen(), [(EventType.CHILD, p), (EventType.CHILD, p), (EventType.DELETED, p)])


@test
def watch_exists(p):
    zk, other = client(), client()
    box = Box()
    same(zk.exists(p, watch=box), None)
    other.create(p)
    box.wait()
    check(zk.exists(p, watch=box))
    other.set(p, b"x")
    box.wait(2)
    check(zk.exists(p, watch=box))
    other.delete(p)
    box.wait(3)
    same(box.seen(), [(EventType.CREATED, p), (EventType.CHANGED, p), (EventType.DELETED, p)])


@test
def watch_is_not_left_by_a_failed_get(p):
    zk = client()
    box = Box()
    with raises(ex.NoNodeError):
        zk.get(p, watch=box)
    with raises(ex.NoNodeError):
        zk.get_children(p, watch=box)
    other = Box()
    zk.exists(p, watch=other)
    zk.create(p)
    other.wait()
    same(box.seen(), [])


@test
def event_comes_before_the_reply(p):
    """The writer sees its own event before the reply, and a reader before any newer data."""
    zk = client()
    order = []
    zk.create(p)
    for i in range(50):
        zk.get(p, watch=lambda event, i=i: order.append(("event", i)))
        call = zk.set_async(p, str(i).encode())
        call.rawlink(lambda result, i=i: order.append(("reply", i)))
        call.get(timeout=5)
    until(lambda: len(order) == 100, "50 events and 50 replies")
    same([o for o in order if o[0] == "event"], [("event", i) for i in range(50)])


@test
def event_only_for_those_who_may_read(p):
    zk, owner = client(), client(auth_data=[("digest", "user:word")])
    hidden, shown, after = Box(), Box(), Box()
    same(zk.exists(p, watch=hidden), None)
    same(owner.exists(p, watch=shown), None)
    owner.create(p, acl=[make_digest_acl("user", "word", all=True)])
    shown.wait()
    owner.get(p, watch=shown)
    zk.exists(p + "-after", watch=after)
    owner.set(p, b"1")
    owner.create(p + "-after")
    after.wait()
    shown.wait(2)
    same(hidden.seen(), [], "an event that may not be read")


@test
def data_watch(p):
    zk, other = client(), client()
    seen, more = [], threading.Condition()

    @zk.DataWatch(p)
    def watcher(data, stat, event):
        with more:
            seen.append((data, stat.version if stat else None, event.type if event else None))
            more.notify_all()
            return len(seen) < 5

    def wait(count):
        with more:
            check(more.wait_for(lambda: len(seen) >= count, 10), seen)

    wait(1)
    other.create(p, b"a")
    wait(2)
    other.set(p, b"b")
    wait(3)
    other.delete(p)
    wait(4)
    other.create(p, b"c")
    wait(5)
    same(
        seen,
        [(None, None, None), (b"a", 0, "CREATED"), (b"b", 1, "CHANGED"), (None, None, "DELETED"), (b"c", 0, "CREATED")],
    )


@test
def children_watch(p):
    zk, other = client(), client()
    zk.create(p)
    seen, more = [], threading.Condition()

    @zk.ChildrenWatch(p, send_event=True)
    def watcher(names, event):
        with more:
            seen.append((sorted(names), event.type if event else None))
            more.notify_all()

    def wait(count):
        with more:
            check(more.wait_for(lambda: len(seen) >= count, 10), seen)

    wait(1)
    other.create(p + "/a")
    wait(2)
    other.create(p + "/b")
    wait(3)
    other.delete(p + "/a")
    wait(4)
    same(seen, [([], None), (["a"], "CHILD"), (["a", "b"], "CHILD"), (["b"], "CHILD")])


@test
def patient_children_watch(p):
    from kazoo.recipe.watchers import PatientChildrenWatch

    zk = client()
    zk.create(p)
    zk.create(p + "/a")
    names, changed = PatientChildrenWatch(zk, p, time_boundary=0.2).start().get(timeout=10)
    same(names, ["a"])
    zk.create(p + "/b")
    changed.get(timeout=10)


@test
def chroot(p):
    zk = client()
    zk.create(p)
    inside = client(chroot=p)
    same(inside.create("/a", b"x"), "/a")
    same(inside.create("/s-", sequence=True), "/s-0000000001")
    same(inside.get("/a")[0], b"x")
    same(zk.get(p + "/a")[0], b"x")
    same(sorted(inside.get_children("/")), ["a", "s-0000000001"])
    box = Box()
    inside.get("/a", watch=box)
    zk.set(p + "/a", b"y")
    same(box.wait().path, "/a")
    t = inside.transaction()
    t.create("/t")
    t.delete("/a")
    same(t.commit(), ["/t", True])
    same(inside.sync("/t"), "/t")
    nowhere = client(chroot=p + "/nowhere")
    with raises(ex.NoNodeError):
        nowhere.create("/a")


@test
def reconfig_is_refused(p):
    zk = client()
    with raises(ex.ReconfigDisabledError):
        zk.reconfig("server.9=127.0.0.1:1:2:participant;127.0.0.1:3", None, None)
    check(zk.exists("/"), "the connection goes on")


@test
def read_only_client(p):
    zk = client(read_only=True)
    same(zk.client_state, "CONNECTED", "a server that can write")
    zk.create(p, b"x")
    same(zk.get(p)[0], b"x")


@test
def quota_is_enforced(p):
    zk = client()
    zk.create(p)
    zk.ensure_path("/zookeeper/quota" + p)
    zk.create(f"/zookeeper/quota{p}/zookeeper_limits", b"count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=3")
    zk.create(f"/zookeeper/quota{p}/zookeeper_stats", b"count=0,bytes=0")
    zk.create(p + "/a")
    zk.create(p + "/b")
    with raises(ex.QuotaExceededError):
        zk.create(p + "/c")
    check(zk.get(f"/zookeeper/quota{p}/zookeeper_stats")[0].startswith(b"count=3,bytes=0"))
    zk.delete(p + "/a")
    zk.create(p + "/c")
