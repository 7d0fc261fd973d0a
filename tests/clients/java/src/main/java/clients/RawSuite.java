package clients;

import static clients.Handle.NOTHING;
import static clients.Handle.connect;
import static clients.Handle.fails;
import static clients.Harness.check;
import static clients.Harness.eventually;
import static clients.Harness.same;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.stream.IntStream;
import org.apache.zookeeper.AddWatchMode;
import org.apache.zookeeper.AsyncCallback;
import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.KeeperException.Code;
import org.apache.zookeeper.Op;
import org.apache.zookeeper.OpResult;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.Watcher.WatcherType;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooDefs.OpCode;
import org.apache.zookeeper.ZooDefs.Perms;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.admin.ZooKeeperAdmin;
import org.apache.zookeeper.data.ACL;
import org.apache.zookeeper.data.Id;
import org.apache.zookeeper.data.Stat;
import org.apache.zookeeper.server.auth.DigestAuthenticationProvider;

/** The plain Java client against every operation of the protocol. */
public final class RawSuite {
    private final Harness h;
    private final String run = Long.toString(System.nanoTime(), 36);
    private int bases;

    private RawSuite(Harness h) {
        this.h = h;
    }

    public static void main(String[] args) {
        var h = new Harness("java", args);
        var s = new RawSuite(h);
        h.test("create-modes", s::createModes)
                .test("create-returns-stat", s::createReturnsStat)
                .test("create-errors", s::createErrors)
                .test("sequence-names", s::sequenceNames)
                .test("sequences-of-many-clients", s::sequencesOfManyClients)
                .test("container", s::container)
                .test("ttl", s::ttl)
                .test("stat-fields", s::statFields)
                .test("null-and-empty-data", s::nullAndEmptyData)
                .test("set-data-versions", s::setDataVersions)
                .test("delete", s::delete)
                .test("children", s::children)
                .test("ephemerals", s::ephemerals)
                .test("all-children-number", s::allChildrenNumber)
                .test("sync", s::sync)
                .test("pipelined-order", s::pipelinedOrder)
                .test("multi", s::multi)
                .test("multi-failure", s::multiFailure)
                .test("multi-all-kinds", s::multiAllKinds)
                .test("multi-of-many", s::multiOfMany)
                .test("transaction", s::transaction)
                .test("multi-read", s::multiRead)
                .test("watch-data", s::watchData)
                .test("watch-exists", s::watchExists)
                .test("watch-children", s::watchChildren)
                .test("watch-not-set-on-missing", s::watchNotSetOnMissing)
                .test("watch-event-before-reply", s::watchEventBeforeReply)
                .test("watch-zxid", s::watchZxid)
                .test("watch-multi", s::watchMulti)
                .test("watch-ephemeral-of-closed-session", s::watchEphemeralOfClosedSession)
                .test("watch-needs-read", s::watchNeedsRead)
                .test("watch-persistent", s::watchPersistent)
                .test("watch-recursive", s::watchRecursive)
                .test("watch-remove", s::watchRemove)
                .test("watch-remove-one-of-two", s::watchRemoveOneOfTwo)
                .test("watch-remove-none", s::watchRemoveNone)
                .test("watch-remove-persistent", s::watchRemovePersistent)
                .test("acl-set-and-get", s::aclSetAndGet)
                .test("acl-digest", s::aclDigest)
                .test("acl-auth-scheme", s::aclAuthScheme)
                .test("acl-masking", s::aclMasking)
                .test("acl-permissions", s::aclPermissions)
                .test("acl-super", s::aclSuper)
                .test("acl-ip", s::aclIp)
                .test("acl-invalid", s::aclInvalid)
                .test("auth-failure", s::authFailure)
                .test("who-am-i", s::whoAmI)
                .test("quota", s::quota)
                .test("system-nodes", s::systemNodes)
                .test("config-and-reconfig", s::configAndReconfig)
                .test("chroot", s::chroot)
                .test("read-only-flag", s::readOnlyFlag)
                .test("large-data", s::largeData)
                .test("too-large-request", s::tooLargeRequest)
                .test("reconnect-replays-watches", s::reconnectReplaysWatches)
                .test("reconnect-many-watches", s::reconnectManyWatches)
                .test("session-timeout-bounds", s::sessionTimeoutBounds)
                .test("session-expires", s::sessionExpires)
                .test("session-of-raw-socket-expires", s::sessionOfRawSocketExpires)
                .test("session-taken-over", s::sessionTakenOver)
                .test("session-moves", s::sessionMoves)
                .test("session-wrong-password", s::sessionWrongPassword)
                .test("session-closed-is-gone", s::sessionClosedIsGone)
                .test("raw-handshake", s::rawHandshake)
                .test("raw-ping", s::rawPing)
                .test("raw-unknown-requests", s::rawUnknownRequests)
                .test("raw-bad-lengths", s::rawBadLengths)
                .test("raw-bad-records", s::rawBadRecords)
                .test("raw-bad-paths", s::rawBadPaths)
                .test("raw-auth", s::rawAuth)
                .test("raw-close-session", s::rawCloseSession)
                .disturb("kill-keeps-session-and-data", s::killKeepsSessionAndData)
                .disturb("kill-keeps-watches", s::killKeepsWatches)
                .disturb("long-outage-expires-no-session", s::longOutageExpiresNoSession)
                .disturb("writes-while-killed", s::writesWhileKilled)
                .run();
    }

    // ---- helpers

    /** A new node of this test's own. */
    private String base(Handle c) throws Exception {
        return c.create("/java-" + run + "-" + bases++);
    }

    private static byte[] bytes(String s) {
        return s.getBytes(StandardCharsets.UTF_8);
    }

    private static List<String> sorted(List<String> names) {
        var copy = new ArrayList<>(names);
        Collections.sort(copy);
        return copy;
    }

    private static ACL acl(int perms, String scheme, String id) {
        return new ACL(perms, new Id(scheme, id));
    }

    /** Not List.of, which the client cannot search for null. */
    private static List<ACL> acls(ACL... acls) {
        return Arrays.asList(acls);
    }

    private static String digest(String userAndPassword) throws Exception {
        return DigestAuthenticationProvider.generateDigest(userAndPassword);
    }

    private static List<Integer> codes(List<OpResult> results) {
        return results.stream().map(r -> r instanceof OpResult.ErrorResult e ? e.getErr() : 0).toList();
    }

    // ---- creating

    private void createModes() throws Exception {
        var c = connect(h);
        String p = base(c);
        same(p + "/a", c.create(p + "/a", bytes("x"), CreateMode.PERSISTENT));
        same(p + "/e", c.create(p + "/e", bytes("x"), CreateMode.EPHEMERAL));
        same(p + "/s-0000000002", c.create(p + "/s-", bytes("x"), CreateMode.PERSISTENT_SEQUENTIAL));
        same(p + "/t-0000000003", c.create(p + "/t-", bytes("x"), CreateMode.EPHEMERAL_SEQUENTIAL));
        same(p + "/c", c.create(p + "/c", bytes("x"), CreateMode.CONTAINER));
        same(p + "/ttl", c.zk.create(p + "/ttl", bytes("x"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, null, 60_000));
        same(p + "/u-0000000006", c.zk.create(p + "/u-", bytes("x"), Ids.OPEN_ACL_UNSAFE,
                CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, null, 60_000));
        for (String name : c.zk.getChildren(p, false)) {
            var stat = new Stat();
            same(bytes("x"), c.zk.getData(p + "/" + name, false, stat), name);
            boolean ephemeral = name.equals("e") || name.startsWith("t-");
            same(ephemeral ? c.zk.getSessionId() : 0L, stat.getEphemeralOwner(), "owner of " + name);
        }
        same(7, c.zk.getChildren(p, false).size());
    }

    private void createReturnsStat() throws Exception {
        var c = connect(h);
        String p = base(c);
        for (CreateMode mode : CreateMode.values()) {
            var created = new Stat();
            String path = mode.isTTL()
                    ? c.zk.create(p + "/" + mode, bytes("abc"), Ids.OPEN_ACL_UNSAFE, mode, created, 60_000)
                    : c.zk.create(p + "/" + mode, bytes("abc"), Ids.OPEN_ACL_UNSAFE, mode, created);
            same(c.zk.exists(path, false), created, "stat of " + path);
            same(3, created.getDataLength());
        }
    }

    private void createErrors() throws Exception {
        var c = connect(h);
        String p = base(c);
        fails(Code.NONODE, () -> c.create(p + "/missing/x"));
        fails(Code.NODEEXISTS, () -> c.create(p));
        fails(Code.NODEEXISTS, () -> c.create("/"));
        c.create(p + "/e", NOTHING, CreateMode.EPHEMERAL);
        fails(Code.NOCHILDRENFOREPHEMERALS, () -> c.create(p + "/e/x"));
        fails(Code.NOCHILDRENFOREPHEMERALS, () -> c.create(p + "/e/s-", NOTHING, CreateMode.PERSISTENT_SEQUENTIAL));
        // An existing node with a sequence prefix's name is no obstacle.
        c.create(p + "/s");
        same(p + "/s0000000002", c.create(p + "/s", NOTHING, CreateMode.PERSISTENT_SEQUENTIAL));
    }

    private void sequenceNames() throws Exception {
        var c = connect(h);
        String p = base(c);
        same(p + "/0000000000", c.create(p + "/", NOTHING, CreateMode.PERSISTENT_SEQUENTIAL));
        // Every create under the parent counts, also plain ones; deletes and failures do not.
        c.create(p + "/x");
        c.zk.delete(p + "/x", -1);
        fails(Code.NODEEXISTS, () -> c.create(p + "/0000000000"));
        same(p + "/n-0000000002", c.create(p + "/n-", NOTHING, CreateMode.PERSISTENT_SEQUENTIAL));
        c.create(p + "/e", NOTHING, CreateMode.EPHEMERAL);
        same(p + "/n-0000000004", c.create(p + "/n-", NOTHING, CreateMode.EPHEMERAL_SEQUENTIAL));
        c.zk.setData(p, bytes("y"), -1);
        same(p + "/m-0000000005", c.create(p + "/m-", NOTHING, CreateMode.PERSISTENT_SEQUENTIAL));
        same(p + "/0000000006", c.create(p + "/", NOTHING, CreateMode.EPHEMERAL_SEQUENTIAL));
        // Grandchildren are counted at their own parent.
        same(p + "/x0000000007", c.create(p + "/x", NOTHING, CreateMode.PERSISTENT_SEQUENTIAL));
        c.create(p + "/x0000000007/a");
        same(p + "/n-0000000008", c.create(p + "/n-", NOTHING, CreateMode.PERSISTENT_SEQUENTIAL));
        same(9, c.zk.exists(p, false).getCversion() - 1, "creates and deletes of children");
    }

    private void sequencesOfManyClients() throws Exception {
        var c = connect(h);
        String p = base(c);
        var names = Collections.synchronizedSet(new TreeSet<String>());
        var done = new CountDownLatch(4 * 50);
        for (int i = 0; i < 4; i++) {
            var other = connect(h);
            for (int k = 0; k < 50; k++) {
                AsyncCallback.StringCallback cb = (rc, path, ctx, name) -> {
                    names.add(String.valueOf(name));
                    done.countDown();
                };
                other.zk.create(p + "/n-", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL, cb, null);
            }
        }
        check(done.await(15L * Harness.SLOW, TimeUnit.SECONDS), "all creates were answered");
        var expected = new TreeSet<String>();
        for (int i = 0; i < 200; i++) expected.add(String.format("%s/n-%010d", p, i));
        same(expected, names);
    }

    private void container() throws Exception {
        var c = connect(h);
        String p = base(c);
        c.create(p + "/never-used", NOTHING, CreateMode.CONTAINER);
        c.create(p + "/c", NOTHING, CreateMode.CONTAINER);
        same(0L, c.zk.exists(p + "/c", false).getEphemeralOwner());
        c.create(p + "/c/x");
        c.create(p + "/c/y");
        c.zk.delete(p + "/c/x", -1);
        var watch = new Events();
        c.zk.exists(p + "/c", watch);
        check(c.has(p + "/c/y"), "a container with a child stays");
        c.zk.delete(p + "/c/y", -1);
        watch.expect(EventType.NodeDeleted, p + "/c");
        check(!c.has(p + "/c"), "the emptied container is gone");
        check(c.has(p + "/never-used"), "a container that never had a child stays");
    }

    private void ttl() throws Exception {
        var c = connect(h);
        String p = base(c);
        var watch = new Events();
        long begin = System.nanoTime();
        c.zk.create(p + "/t", bytes("x"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, null, 1500);
        c.zk.create(p + "/parent", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, null, 1500);
        c.create(p + "/parent/child");
        c.zk.create(p + "/long", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, null, 600_000);
        same(0L, c.zk.exists(p + "/t", watch).getEphemeralOwner());
        watch.expect(EventType.NodeDeleted, p + "/t");
        check(Harness.millisSince(begin) >= 1400, "a TTL node lives as long as its TTL");
        check(c.has(p + "/parent"), "a TTL node with a child stays");
        check(c.has(p + "/long"), "a TTL node stays until its time has come");
        c.zk.exists(p + "/parent", watch);
        c.zk.delete(p + "/parent/child", -1);
        watch.expect(EventType.NodeDeleted, p + "/parent");
        for (long bad : new long[] {0, -1, 0x10000000000L}) {
            try {
                c.zk.create(p + "/bad", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, null, bad);
                throw new AssertionError("a TTL of " + bad + " was taken");
            } catch (IllegalArgumentException e) {
                check(!c.has(p + "/bad"), "nothing was made");
            }
        }
    }

    // ---- stat, data, delete, children

    private void statFields() throws Exception {
        var c = connect(h);
        String p = base(c);
        long before = System.currentTimeMillis();
        String n = c.create(p + "/n", bytes("four"), CreateMode.PERSISTENT);
        var s = c.zk.exists(n, false);
        check(Math.abs(s.getCtime() - before) < 60_000, "ctime is the time of day in ms");
        same(new Stat(s.getCzxid(), s.getCzxid(), s.getCtime(), s.getCtime(), 0, 0, 0, 0, 4, 0, s.getCzxid()), s, "after create");
        same(s.getCzxid(), c.zk.exists(p, false).getPzxid(), "pzxid of the parent");

        c.create(n + "/a");
        var a = c.zk.exists(n + "/a", false);
        check(a.getCzxid() > s.getCzxid(), "zxids rise");
        s.setCversion(1);
        s.setNumChildren(1);
        s.setPzxid(a.getCzxid());
        same(s, c.zk.exists(n, false), "after a child's create");

        var set = c.zk.setData(n + "/a", bytes("123"), 0);
        same(a.getCzxid() + 1, set.getMzxid(), "the next write takes the next zxid");
        same(new Stat(a.getCzxid(), set.getMzxid(), a.getCtime(), set.getMtime(), 1, 0, 0, 0, 3, 0, a.getCzxid()), set, "after setData");
        check(set.getMtime() >= set.getCtime(), "mtime is not before ctime");
        same(s, c.zk.exists(n, false), "the parent after a child's setData");

        c.zk.delete(n + "/a", 1);
        s.setCversion(2);
        s.setNumChildren(0);
        s.setPzxid(set.getMzxid() + 1);
        same(s, c.zk.exists(n, false), "after a child's delete");

        s.setAversion(1);
        same(s, c.zk.setACL(n, Ids.OPEN_ACL_UNSAFE, 0), "after setACL");
        same(s, c.zk.exists(n, false), "after setACL");

        // Grandchildren change nothing here.
        c.create(n + "/b");
        var withB = c.zk.exists(n, false);
        c.create(n + "/b/c");
        same(withB, c.zk.exists(n, false), "after a grandchild's create");

        var owner = new Stat();
        c.zk.create(p + "/e", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL, owner);
        same(c.zk.getSessionId(), owner.getEphemeralOwner());
        same(0, owner.getDataLength());

        var same = new Stat();
        c.zk.getData(n, false, same);
        same(withB, same, "getData's stat");
        c.zk.getChildren(n, false, same);
        same(withB, same, "getChildren's stat");
        c.zk.getACL(n, same);
        same(withB, same, "getACL's stat");

        // A failed write takes a zxid too.
        fails(Code.NODEEXISTS, () -> c.create(n));
        same(owner.getCzxid() + 2, c.zk.setData(n, NOTHING, -1).getMzxid(), "zxid after a failed write");
    }

    private void nullAndEmptyData() throws Exception {
        var c = connect(h);
        String p = base(c);
        c.create(p + "/null", null, CreateMode.PERSISTENT);
        c.create(p + "/empty", NOTHING, CreateMode.PERSISTENT);
        same(null, c.zk.getData(p + "/null", false, null));
        same(NOTHING, c.zk.getData(p + "/empty", false, null));
        c.zk.setData(p + "/null", NOTHING, -1);
        c.zk.setData(p + "/empty", null, -1);
        same(NOTHING, c.zk.getData(p + "/null", false, null));
        same(null, c.zk.getData(p + "/empty", false, null));
        same(0, c.zk.exists(p + "/empty", false).getDataLength());
    }

    private void setDataVersions() throws Exception {
        var c = connect(h);
        String p = base(c);
        same(1, c.zk.setData(p, bytes("1"), 0).getVersion());
        same(2, c.zk.setData(p, bytes("2"), -1).getVersion());
        same(3, c.zk.setData(p, bytes("2"), 2).getVersion());
        fails(Code.BADVERSION, () -> c.zk.setData(p, bytes("3"), 2));
        fails(Code.BADVERSION, () -> c.zk.setData(p, bytes("3"), 4));
        fails(Code.NONODE, () -> c.zk.setData(p + "/missing", bytes("3"), -1));
        fails(Code.NONODE, () -> c.zk.getData(p + "/missing", false, null));
        same(bytes("2"), c.zk.getData(p, false, null));
        same(null, c.zk.exists(p + "/missing", false));
    }

    private void delete() throws Exception {
        var c = connect(h);
        String p = base(c);
        c.create(p + "/a");
        c.create(p + "/a/b");
        fails(Code.NOTEMPTY, () -> c.zk.delete(p + "/a", -1));
        fails(Code.BADVERSION, () -> c.zk.delete(p + "/a/b", 1));
        c.zk.delete(p + "/a/b", 0);
        fails(Code.NONODE, () -> c.zk.delete(p + "/a/b", 0));
        // A node with a wrong version and children: the version is looked at first.
        c.create(p + "/a/b");
        fails(Code.BADVERSION, () -> c.zk.delete(p + "/a", 7));
        fails(Code.BADARGUMENTS, () -> c.zk.delete("/", -1));
        fails(Code.BADARGUMENTS, () -> c.zk.delete("/zookeeper", -1));
        // Created again, a node begins anew.
        c.zk.setData(p + "/a/b", bytes("x"), 0);
        c.zk.delete(p + "/a/b", 1);
        c.create(p + "/a/b");
        same(0, c.zk.exists(p + "/a/b", false).getVersion());
    }

    private void children() throws Exception {
        var c = connect(h);
        String p = base(c);
        same(List.of(), c.zk.getChildren(p, false));
        var expected = IntStream.range(0, 300).mapToObj(i -> String.format("child-%03d", i)).toList();
        for (String name : expected) c.zk.create(p + "/" + name, NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL, (rc, path, ctx, n) -> { }, null);
        same(expected, sorted(c.zk.getChildren(p, false)));
        var stat = new Stat();
        same(expected, sorted(c.zk.getChildren(p, false, stat)));
        same(300, stat.getNumChildren());
        fails(Code.NONODE, () -> c.zk.getChildren(p + "/missing", false));
        c.create(p + "/ünï-日本");
        check(c.zk.getChildren(p, false).contains("ünï-日本"), "names are UTF-8");
    }

    private void ephemerals() throws Exception {
        var c = connect(h);
        var other = connect(h);
        String p = base(c);
        c.create(p + "/a", NOTHING, CreateMode.EPHEMERAL);
        c.create(p + "/b-", NOTHING, CreateMode.EPHEMERAL_SEQUENTIAL);
        other.create(p + "/c", NOTHING, CreateMode.EPHEMERAL);
        c.create(p + "/d");
        same(List.of(p + "/a", p + "/b-0000000001"), sorted(c.zk.getEphemerals()));
        same(List.of(p + "/a"), c.zk.getEphemerals(p + "/a"));
        same(List.of(), c.zk.getEphemerals("/nowhere"));
        same(List.of(p + "/c"), other.zk.getEphemerals());
        // A delete by anyone takes it off the list; the end of the session takes the rest off the tree.
        other.zk.delete(p + "/a", -1);
        same(List.of(p + "/b-0000000001"), c.zk.getEphemerals());
        c.zk.close();
        same(List.of("c", "d"), sorted(other.zk.getChildren(p, false)));
    }

    private void allChildrenNumber() throws Exception {
        var c = connect(h);
        String p = base(c);
        same(0, c.zk.getAllChildrenNumber(p));
        c.create(p + "/a");
        c.create(p + "/a/b");
        c.create(p + "/a/b/c");
        c.create(p + "-sibling");
        same(3, c.zk.getAllChildrenNumber(p));
        same(2, c.zk.getAllChildrenNumber(p + "/a"));
        check(c.zk.getAllChildrenNumber("/") >= 8, "the root counts everything, system nodes too");
        fails(Code.NONODE, () -> c.zk.getAllChildrenNumber(p + "/missing"));
    }

    private void sync() throws Exception {
        var c = connect(h);
        String p = base(c);
        var writer = connect(h);
        for (int i = 0; i < 20; i++) {
            writer.zk.setData(p, bytes("" + i), -1);
            var got = new CompletableFuture<Object>();
            AsyncCallback.VoidCallback cb = (rc, path, ctx) -> got.complete(rc + path);
            c.zk.sync(p, cb, null);
            same("0" + p, got.get(10L * Harness.SLOW, TimeUnit.SECONDS));
            same(bytes("" + i), c.zk.getData(p, false, null));
        }
        var missing = new CompletableFuture<Integer>();
        AsyncCallback.VoidCallback cb = (rc, path, ctx) -> missing.complete(rc);
        c.zk.sync(p + "/missing", cb, null);
        same(0, missing.get(10L * Harness.SLOW, TimeUnit.SECONDS), "sync of a missing node");
    }

    private void pipelinedOrder() throws Exception {
        var c = connect(h);
        String p = base(c);
        int n = 1000;
        var order = Collections.synchronizedList(new ArrayList<Integer>());
        var wrong = Collections.synchronizedList(new ArrayList<String>());
        var done = new CountDownLatch(2 * n);
        for (int i = 0; i < n; i++) {
            // A read behind a write of the same handle sees it.
            c.zk.setData(p, bytes("" + i), i, (rc, path, ctx, stat) -> {
                order.add((Integer) ctx);
                if (rc != 0) wrong.add("setData " + ctx + ": " + rc);
                done.countDown();
            }, 2 * i);
            c.zk.getData(p, false, (rc, path, ctx, data, stat) -> {
                order.add((Integer) ctx);
                int k = (Integer) ctx / 2;
                if (rc != 0 || stat.getVersion() < k + 1) wrong.add("getData " + ctx + ": " + rc + " " + stat);
                done.countDown();
            }, 2 * i + 1);
        }
        check(done.await(20L * Harness.SLOW, TimeUnit.SECONDS), "all requests were answered");
        same(List.of(), wrong);
        same(IntStream.range(0, 2 * n).boxed().toList(), order);
    }

    // ---- multi

    private void multi() throws Exception {
        var c = connect(h);
        String p = base(c);
        c.create(p + "/old");
        var results = c.zk.multi(List.of(
                Op.create(p + "/a", bytes("a"), Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create(p + "/a/b", bytes("b"), Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL),
                Op.setData(p + "/a", bytes("aa"), 0),
                Op.check(p + "/a", 1),
                Op.delete(p + "/old", 0)));
        same(List.of(OpCode.create, OpCode.create, OpCode.setData, OpCode.check, OpCode.delete),
                results.stream().map(OpResult::getType).toList());
        same(p + "/a", ((OpResult.CreateResult) results.get(0)).getPath());
        same(p + "/a/b", ((OpResult.CreateResult) results.get(1)).getPath());
        var stat = ((OpResult.SetDataResult) results.get(2)).getStat();
        same(1, stat.getVersion());
        // One transaction, one zxid.
        var a = c.zk.exists(p + "/a", false);
        var b = c.zk.exists(p + "/a/b", false);
        same(a.getCzxid(), b.getCzxid());
        same(a.getCzxid(), a.getMzxid());
        same(a.getCzxid(), a.getPzxid());
        same(a.getCzxid(), c.zk.exists(p, false).getPzxid());
        same(c.zk.getSessionId(), b.getEphemeralOwner());
        check(!c.has(p + "/old"), "deleted");
        same(List.of(), c.zk.multi(List.of()), "an empty multi");
        // Sequence numbers within one multi follow each other.
        results = c.zk.multi(List.of(
                Op.create(p + "/s-", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL),
                Op.create(p + "/s-", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL_SEQUENTIAL)));
        same(List.of(p + "/s-0000000002", p + "/s-0000000003"),
                results.stream().map(r -> ((OpResult.CreateResult) r).getPath()).toList());
        // Kafka registers a broker like this: the ephemeral's data is null, and the second result's stat is used.
        results = c.zk.multi(List.of(
                Op.create(p + "/broker", null, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL),
                Op.setData(p + "/broker", bytes("info"), 0)));
        var broker = ((OpResult.SetDataResult) results.get(1)).getStat();
        same(c.zk.getSessionId(), broker.getEphemeralOwner());
        same(broker, c.zk.exists(p + "/broker", false));
        // Made and deleted within one multi, a node is never there.
        c.zk.multi(List.of(
                Op.create(p + "/brief", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.delete(p + "/brief", 0)));
        check(!c.has(p + "/brief"), "made and deleted");
    }

    private void multiFailure() throws Exception {
        var c = connect(h);
        String p = base(c);
        var before = c.zk.exists(p, false);
        var ops = List.of(
                Op.create(p + "/s-", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL),
                Op.setData(p, bytes("x"), 0),
                Op.check(p, 7),
                Op.delete(p + "/missing", -1),
                Op.create(p + "/t", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        try {
            c.zk.multi(ops);
            throw new AssertionError("succeeded");
        } catch (KeeperException e) {
            same(Code.BADVERSION, e.code());
            same(List.of(0, 0, -103, -2, -2), codes(e.getResults()));
        }
        same(before, c.zk.exists(p, false), "stat after a failed multi");
        same(p + "/s-0000000000", c.create(p + "/s-", NOTHING, CreateMode.PERSISTENT_SEQUENTIAL), "the counter was rolled back");
        var outcome = new CompletableFuture<List<Integer>>();
        c.zk.multi(List.of(
                Op.create(p + "/u", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create(p + "/missing/u", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.check(p, 0)), (rc, path, ctx, results) -> outcome.complete(codes(results)), null);
        same(List.of(0, -101, -2), outcome.get(10L * Harness.SLOW, TimeUnit.SECONDS));
        for (var failing : List.of(
                Op.create(p, NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.delete(p, -1),
                Op.check(p + "/missing", -1),
                Op.setData(p, NOTHING, 3))) {
            try {
                c.zk.multi(List.of(Op.create(p + "/v", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL), failing));
                throw new AssertionError(failing + " succeeded");
            } catch (KeeperException e) {
                var expected = switch (failing.getType()) {
                    case OpCode.create -> Code.NODEEXISTS;
                    case OpCode.delete -> Code.NOTEMPTY;
                    case OpCode.check -> Code.NONODE;
                    default -> Code.BADVERSION;
                };
                same(List.of(0, expected.intValue()), codes(e.getResults()));
            }
        }
        same(List.of(), c.zk.getEphemerals());
        same(List.of("s-0000000000"), c.zk.getChildren(p, false));
    }

    private void multiAllKinds() throws Exception {
        var c = connect(h);
        String p = base(c);
        var results = c.zk.multi(List.of(
                Op.create(p + "/container", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.CONTAINER),
                Op.create(p + "/ttl", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, 600_000),
                Op.create(p + "/ttl-", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_SEQUENTIAL_WITH_TTL, 600_000)));
        same(List.of(OpCode.create2, OpCode.create2, OpCode.create2), results.stream().map(OpResult::getType).toList());
        same(List.of(p + "/container", p + "/ttl", p + "/ttl-0000000002"),
                results.stream().map(r -> ((OpResult.CreateResult) r).getPath()).toList());
        for (var r : results) {
            var created = (OpResult.CreateResult) r;
            same(c.zk.exists(created.getPath(), false), created.getStat(), created.getPath());
        }
    }

    private void multiOfMany() throws Exception {
        var c = connect(h);
        String p = base(c);
        var ops = new ArrayList<Op>();
        for (int i = 0; i < 1000; i++) ops.add(Op.create(p + "/n" + i, NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        same(1000, c.zk.multi(ops).size());
        same(1000, c.zk.getAllChildrenNumber(p));
        // Over the size of one packet: the connection is closed and nothing is done.
        var big = List.of(Op.create(p + "/a", new byte[600_000], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create(p + "/b", new byte[600_000], Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT));
        fails(Code.CONNECTIONLOSS, () -> c.zk.multi(big));
        c.events.state(KeeperState.Disconnected);
        c.events.state(KeeperState.SyncConnected);
        same(1000, c.zk.getAllChildrenNumber(p));
    }

    private void transaction() throws Exception {
        var c = connect(h);
        String p = base(c);
        var results = c.zk.transaction()
                .create(p + "/a", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT)
                .setData(p + "/a", bytes("x"), 0)
                .check(p + "/a", 1)
                .create(p + "/b", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT)
                .delete(p + "/b", 0)
                .commit();
        same(5, results.size());
        same(List.of("a"), c.zk.getChildren(p, false));
        fails(Code.BADVERSION, () -> c.zk.transaction().delete(p + "/a", 1).check(p, 9).commit());
        check(c.has(p + "/a"), "a failed transaction deletes nothing");
    }

    private void multiRead() throws Exception {
        var c = connect(h);
        String p = base(c);
        c.create(p + "/a", bytes("data"), CreateMode.PERSISTENT);
        c.create(p + "/null", null, CreateMode.PERSISTENT);
        c.zk.create(p + "/secret", NOTHING, acls(acl(Perms.ALL, "digest", digest("x:y"))), CreateMode.PERSISTENT);
        var results = c.zk.multi(List.of(
                Op.getData(p + "/a"), Op.getData(p + "/missing"), Op.getChildren(p), Op.getData(p + "/secret"),
                Op.getChildren(p + "/missing"), Op.getData(p + "/null")));
        same(List.of(0, -101, 0, -102, -101, 0), codes(results));
        var data = (OpResult.GetDataResult) results.get(0);
        same(bytes("data"), data.getData());
        same(c.zk.exists(p + "/a", false), data.getStat());
        same(List.of("a", "null", "secret"), sorted(((OpResult.GetChildrenResult) results.get(2)).getChildren()));
        same(null, ((OpResult.GetDataResult) results.get(5)).getData());
    }

    // ---- watches

    private void watchData() throws Exception {
        var c = connect(h);
        var writer = connect(h);
        String p = base(c);
        var w = new Events();
        c.zk.getData(p, w, null);
        writer.zk.setData(p, bytes("1"), -1);
        w.expect(EventType.NodeDataChanged, p);
        writer.zk.setData(p, bytes("2"), -1);
        w.none(c.zk);
        c.zk.getData(p, w, null);
        writer.create(p + "/child");
        writer.zk.setACL(p, Ids.OPEN_ACL_UNSAFE, -1);
        w.none(c.zk);
        writer.zk.delete(p + "/child", -1);
        writer.zk.delete(p, -1);
        w.expect(EventType.NodeDeleted, p);
        w.none(c.zk);
    }

    private void watchExists() throws Exception {
        var c = connect(h);
        var writer = connect(h);
        String p = base(c);
        var w = new Events();
        same(null, c.zk.exists(p + "/x", w));
        writer.create(p + "/x");
        w.expect(EventType.NodeCreated, p + "/x");
        writer.zk.setData(p + "/x", bytes("1"), -1);
        w.none(c.zk);
        c.zk.exists(p + "/x", w);
        writer.zk.setData(p + "/x", bytes("2"), -1);
        w.expect(EventType.NodeDataChanged, p + "/x");
        c.zk.exists(p + "/x", w);
        writer.zk.delete(p + "/x", -1);
        w.expect(EventType.NodeDeleted, p + "/x");
        w.none(c.zk);
    }

    private void watchChildren() throws Exception {
        var c = connect(h);
        var writer = connect(h);
        String p = base(c);
        var w = new Events();
        c.zk.getChildren(p, w);
        writer.zk.setData(p, bytes("1"), -1);
        w.none(c.zk);
        writer.create(p + "/x");
        w.expect(EventType.NodeChildrenChanged, p);
        writer.create(p + "/y");
        w.none(c.zk);
        c.zk.getChildren(p, w, new Stat());
        writer.zk.setData(p + "/x", bytes("1"), -1);
        writer.create(p + "/x/deep");
        w.none(c.zk);
        writer.zk.delete(p + "/y", -1);
        w.expect(EventType.NodeChildrenChanged, p);
        // A child watch and a data watch on one node: its delete is told once.
        var d = new Events();
        c.zk.getChildren(p + "/x/deep", w);
        c.zk.getData(p + "/x/deep", d, null);
        writer.zk.delete(p + "/x/deep", -1);
        w.expect(EventType.NodeDeleted, p + "/x/deep");
        d.expect(EventType.NodeDeleted, p + "/x/deep");
        w.none(c.zk);
        d.none(c.zk);
    }

    private void watchNotSetOnMissing() throws Exception {
        var c = connect(h);
        String p = base(c);
        var w = new Events();
        fails(Code.NONODE, () -> c.zk.getData(p + "/x", w, null));
        fails(Code.NONODE, () -> c.zk.getChildren(p + "/x", w));
        c.create(p + "/x");
        c.create(p + "/x/y");
        w.none(c.zk);
    }

    private void watchEventBeforeReply() throws Exception {
        var c = connect(h);
        String p = base(c);
        var order = Collections.synchronizedList(new ArrayList<String>());
        var done = new CountDownLatch(50);
        for (int i = 0; i < 50; i++) {
            c.zk.getData(p, e -> order.add("event"), null);
            c.zk.setData(p, NOTHING, -1, (rc, path, ctx, stat) -> {
                order.add("reply");
                done.countDown();
            }, null);
            long reached = 50 - i - 1;
            eventually("reply " + i, () -> done.getCount() <= reached);
        }
        var expected = new ArrayList<String>();
        for (int i = 0; i < 50; i++) expected.addAll(List.of("event", "reply"));
        same(expected, order);
        // Another handle's change: the event is there before a read shows the new state.
        var writer = connect(h);
        var w = new Events();
        c.zk.getData(p, w, null);
        var stop = new CountDownLatch(1);
        var firstNew = new CompletableFuture<List<String>>();
        long old = c.zk.exists(p, false).getMzxid();
        writer.zk.setData(p, bytes("new"), -1, (rc, path, ctx, stat) -> stop.countDown(), null);
        while (!firstNew.isDone()) {
            c.zk.getData(p, false, (rc, path, ctx, data, stat) -> {
                if (stat.getMzxid() > old && !firstNew.isDone()) {
                    try {
                        w.expect(EventType.NodeDataChanged, p);
                        firstNew.complete(List.of());
                    } catch (Exception | AssertionError e) {
                        firstNew.completeExceptionally(e);
                    }
                }
            }, null);
            c.zk.exists(p, false);
        }
        firstNew.get(10L * Harness.SLOW, TimeUnit.SECONDS);
        check(stop.await(10L * Harness.SLOW, TimeUnit.SECONDS), "the write was answered");
    }

    private void watchZxid() throws Exception {
        var c = connect(h);
        String p = base(c);
        var w = new Events();
        c.zk.getData(p, w, null);
        var stat = c.zk.setData(p, bytes("1"), -1);
        same(stat.getMzxid(), w.expect(EventType.NodeDataChanged, p).getZxid(), "zxid of the event");
        c.zk.getChildren(p, w);
        c.create(p + "/x");
        same(c.zk.exists(p + "/x", false).getCzxid(), w.expect(EventType.NodeChildrenChanged, p).getZxid(), "zxid of the event");
    }

    private void watchMulti() throws Exception {
        var c = connect(h);
        String p = base(c);
        c.create(p + "/a");
        var w = new Events();
        c.zk.getData(p, w, null);
        c.zk.getChildren(p, w);
        c.zk.exists(p + "/a", w);
        c.zk.exists(p + "/b", w);
        try {
            c.zk.multi(List.of(Op.setData(p, bytes("1"), -1), Op.delete(p + "/a", -1), Op.check(p, 9)));
        } catch (KeeperException.BadVersionException e) {
            w.none(c.zk);
        }
        c.zk.multi(List.of(
                Op.setData(p, bytes("1"), -1),
                Op.delete(p + "/a", -1),
                Op.create(p + "/b", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT)));
        same(List.of("NodeDataChanged " + p, "NodeDeleted " + p + "/a", "NodeChildrenChanged " + p, "NodeCreated " + p + "/b"),
                w.drain(c.zk));
    }

    private void watchEphemeralOfClosedSession() throws Exception {
        var c = connect(h);
        String p = base(c);
        var other = connect(h);
        other.create(p + "/e", NOTHING, CreateMode.EPHEMERAL);
        var w = new Events();
        c.zk.exists(p + "/e", w);
        c.zk.getChildren(p, w);
        other.zk.close();
        var got = new HashSet<String>();
        eventually("both events", () -> {
            got.addAll(w.drain(c.zk));
            return got.size() >= 2;
        });
        same(Set.of("NodeDeleted " + p + "/e", "NodeChildrenChanged " + p), got);
        check(!c.has(p + "/e"), "the ephemeral is gone");
    }

    private void watchNeedsRead() throws Exception {
        var c = connect(h);
        var owner = connect(h);
        owner.zk.addAuthInfo("digest", bytes("owner:pw"));
        String p = base(c);
        var w = new Events();
        c.zk.exists(p + "/secret", w);
        c.zk.exists(p + "/open", w);
        owner.zk.create(p + "/secret", NOTHING, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        owner.create(p + "/open");
        w.expect(EventType.NodeCreated, p + "/open");
        w.none(c.zk);
    }

    private void watchPersistent() throws Exception {
        var c = connect(h);
        var writer = connect(h);
        String p = base(c);
        var w = new Events();
        c.zk.addWatch(p + "/x", w, AddWatchMode.PERSISTENT);
        writer.create(p + "/x");
        writer.zk.setData(p + "/x", bytes("1"), -1);
        writer.zk.setData(p + "/x", bytes("2"), -1);
        writer.create(p + "/x/y");
        writer.zk.setData(p + "/x/y", bytes("1"), -1);
        writer.zk.delete(p + "/x/y", -1);
        writer.zk.delete(p + "/x", -1);
        writer.create(p + "/x");
        same(List.of("NodeCreated", "NodeDataChanged", "NodeDataChanged", "NodeChildrenChanged", "NodeChildrenChanged",
                "NodeDeleted", "NodeCreated").stream().map(t -> t + " " + p + "/x").toList(), w.drain(c.zk));
        // A one-shot watch beside it lives its own life.
        var once = new Events();
        c.zk.getData(p + "/x", once, null);
        writer.zk.setData(p + "/x", bytes("1"), -1);
        writer.zk.setData(p + "/x", bytes("2"), -1);
        same(List.of("NodeDataChanged " + p + "/x"), once.drain(c.zk));
        same(2, w.drain(c.zk).size());
    }

    private void watchRecursive() throws Exception {
        var c = connect(h);
        var writer = connect(h);
        String p = base(c);
        var w = new Events();
        c.zk.addWatch(p, w, AddWatchMode.PERSISTENT_RECURSIVE);
        writer.create(p + "/a");
        writer.create(p + "/a/b");
        writer.zk.setData(p + "/a/b", bytes("1"), -1);
        writer.create(p + "-sibling");
        writer.zk.setData(p, bytes("1"), -1);
        writer.zk.delete(p + "/a/b", -1);
        writer.zk.multi(List.of(
                Op.create(p + "/m", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create(p + "/m/n", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT)));
        same(List.of("NodeCreated " + p + "/a", "NodeCreated " + p + "/a/b", "NodeDataChanged " + p + "/a/b",
                "NodeDataChanged " + p, "NodeDeleted " + p + "/a/b", "NodeCreated " + p + "/m", "NodeCreated " + p + "/m/n"),
                w.drain(c.zk));
        // An ordinary child watch in the same handle goes on working below it.
        var once = new Events();
        c.zk.getChildren(p + "/a", once);
        writer.create(p + "/a/c");
        same(List.of("NodeChildrenChanged " + p + "/a"), once.drain(c.zk));
        check(w.drain(c.zk).contains("NodeCreated " + p + "/a/c"), "the recursive watch saw it too");
        c.zk.addWatch(p + "/not-there-yet", w, AddWatchMode.PERSISTENT_RECURSIVE);
        writer.create(p + "/not-there-yet");
        same(List.of("NodeCreated " + p + "/not-there-yet"), w.drain(c.zk), "told once, though two watches cover it");
    }

    private void watchRemove() throws Exception {
        var c = connect(h);
        String p = base(c);
        var data = new Events();
        var child = new Events();
        c.zk.getData(p, data, null);
        c.zk.getChildren(p, child);
        c.zk.removeWatches(p, data, WatcherType.Data, false);
        data.expect(EventType.DataWatchRemoved, p);
        c.zk.setData(p, bytes("1"), -1);
        data.none(c.zk);
        c.zk.removeWatches(p, child, WatcherType.Children, false);
        child.expect(EventType.ChildWatchRemoved, p);
        c.create(p + "/x");
        child.none(c.zk);
        // All watchers of a path at once.
        var exists = new Events();
        c.zk.exists(p + "/y", exists);
        c.zk.getData(p + "/x", data, null);
        c.zk.getChildren(p + "/x", child);
        c.zk.removeAllWatches(p + "/x", WatcherType.Any, false);
        data.expect(EventType.DataWatchRemoved, p + "/x");
        child.expect(EventType.ChildWatchRemoved, p + "/x");
        c.zk.removeAllWatches(p + "/y", WatcherType.Data, false);
        exists.expect(EventType.DataWatchRemoved, p + "/y");
        c.create(p + "/y");
        c.zk.delete(p + "/x", -1);
        for (var w : List.of(data, child, exists)) w.none(c.zk);
    }

    private void watchRemoveOneOfTwo() throws Exception {
        var c = connect(h);
        String p = base(c);
        var one = new Events();
        var two = new Events();
        c.zk.getData(p, one, null);
        c.zk.getData(p, two, null);
        c.zk.removeWatches(p, one, WatcherType.Any, false);
        one.expect(EventType.DataWatchRemoved, p);
        c.zk.setData(p, bytes("1"), -1);
        two.expect(EventType.NodeDataChanged, p);
        one.none(c.zk);
        // Data and child watch of one watcher: removing the one leaves the other.
        c.zk.getData(p, one, null);
        c.zk.getChildren(p, one);
        c.zk.removeWatches(p, one, WatcherType.Data, false);
        one.expect(EventType.DataWatchRemoved, p);
        c.zk.setData(p, bytes("2"), -1);
        c.create(p + "/x");
        same(List.of("NodeChildrenChanged " + p), one.drain(c.zk));
    }

    private void watchRemoveNone() throws Exception {
        var c = connect(h);
        String p = base(c);
        var w = new Events();
        fails(Code.NOWATCHER, () -> c.zk.removeWatches(p, w, WatcherType.Any, false));
        fails(Code.NOWATCHER, () -> c.zk.removeAllWatches(p, WatcherType.Data, false));
        c.zk.getData(p, w, null);
        fails(Code.NOWATCHER, () -> c.zk.removeAllWatches(p, WatcherType.Children, false));
        fails(Code.NOWATCHER, () -> c.zk.removeAllWatches(p + "/missing", WatcherType.Any, false));
        c.zk.setData(p, bytes("1"), -1);
        w.expect(EventType.NodeDataChanged, p);
    }

    private void watchRemovePersistent() throws Exception {
        var c = connect(h);
        String p = base(c);
        var w = new Events();
        var r = new Events();
        c.zk.addWatch(p, w, AddWatchMode.PERSISTENT);
        c.zk.addWatch(p, r, AddWatchMode.PERSISTENT_RECURSIVE);
        c.create(p + "/x");
        c.zk.removeWatches(p, w, WatcherType.Persistent, false);
        w.drain(c.zk);
        c.zk.setData(p, bytes("1"), -1);
        w.none(c.zk);
        same(List.of("NodeCreated " + p + "/x", "NodeDataChanged " + p), r.drain(c.zk));
        c.zk.removeWatches(p, r, WatcherType.PersistentRecursive, false);
        r.drain(c.zk);
        c.create(p + "/y");
        c.zk.setData(p, bytes("2"), -1);
        r.none(c.zk);
        w.none(c.zk);
        fails(Code.NOWATCHER, () -> c.zk.removeAllWatches(p, WatcherType.Any, false));
    }

    // ---- access control

    private void aclSetAndGet() throws Exception {
        var c = connect(h);
        String p = base(c);
        same(Ids.OPEN_ACL_UNSAFE, c.zk.getACL(p, new Stat()));
        var list = acls(acl(Perms.ALL, "world", "anyone"), acl(Perms.READ, "ip", "10.0.0.0/8"));
        var stat = c.zk.setACL(p, list, 0);
        same(1, stat.getAversion());
        var got = new Stat();
        same(list, c.zk.getACL(p, got));
        same(stat, got);
        fails(Code.BADVERSION, () -> c.zk.setACL(p, list, 0));
        fails(Code.NONODE, () -> c.zk.setACL(p + "/missing", list, -1));
        fails(Code.NONODE, () -> c.zk.getACL(p + "/missing", null));
        // The same entry twice is kept once.
        c.zk.setACL(p, acls(list.get(0), list.get(1), list.get(0)), -1);
        same(list, c.zk.getACL(p, null));
        // An ACL is not inherited.
        c.create(p + "/x");
        same(Ids.OPEN_ACL_UNSAFE, c.zk.getACL(p + "/x", null));
    }

    private void aclDigest() throws Exception {
        var c = connect(h);
        String p = base(c);
        var list = acls(acl(Perms.ALL, "digest", digest("alice:secret")));
        c.zk.create(p + "/a", bytes("x"), list, CreateMode.PERSISTENT);
        c.zk.create(p + "/a-ephemeral", bytes("x"), list, CreateMode.EPHEMERAL);
        fails(Code.NOAUTH, () -> c.zk.getData(p + "/a", false, null));
        fails(Code.NOAUTH, () -> c.zk.setData(p + "/a", NOTHING, -1));
        fails(Code.NOAUTH, () -> c.zk.getChildren(p + "/a", false));
        fails(Code.NOAUTH, () -> c.zk.getACL(p + "/a", null));
        fails(Code.NOAUTH, () -> c.zk.setACL(p + "/a", Ids.OPEN_ACL_UNSAFE, -1));
        fails(Code.NOAUTH, () -> c.create(p + "/a/b"));
        // exists needs READ too, but says nothing of nodes that are not there.
        fails(Code.NOAUTH, () -> c.zk.exists(p + "/a", false));
        same(null, c.zk.exists(p + "/a-missing", false));
        c.zk.addAuthInfo("digest", bytes("alice:wrong"));
        fails(Code.NOAUTH, () -> c.zk.getData(p + "/a", false, null));
        // Identities add up.
        c.zk.addAuthInfo("digest", bytes("alice:secret"));
        same(bytes("x"), c.zk.getData(p + "/a", false, null));
        same(list, c.zk.getACL(p + "/a", null));
        c.create(p + "/a/b");
        // The client repeats its identities after a reconnect.
        var tap = h.closing(new Tap(h.servers));
        var d = connect(h, tap.address(), 10_000);
        d.zk.addAuthInfo("digest", bytes("alice:secret"));
        same(bytes("x"), d.zk.getData(p + "/a", false, null));
        d.events.forgetStates();
        tap.cut();
        d.events.state(KeeperState.Disconnected);
        tap.mend();
        d.events.state(KeeperState.SyncConnected);
        same(bytes("x"), d.zk.getData(p + "/a", false, null));
    }

    private void aclAuthScheme() throws Exception {
        var c = connect(h);
        String p = base(c);
        fails(Code.INVALIDACL, () -> c.zk.create(p + "/a", NOTHING, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT));
        c.zk.addAuthInfo("digest", bytes("bob:1"));
        c.zk.addAuthInfo("digest", bytes("carol:2"));
        c.zk.create(p + "/a", NOTHING, Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        same(Set.of(acl(Perms.ALL, "digest", digest("bob:1")), acl(Perms.ALL, "digest", digest("carol:2"))),
                new HashSet<>(c.zk.getACL(p + "/a", null)));
        var d = connect(h);
        fails(Code.NOAUTH, () -> d.zk.getData(p + "/a", false, null));
        d.zk.addAuthInfo("digest", bytes("carol:2"));
        d.zk.getData(p + "/a", false, null);
    }

    private void aclMasking() throws Exception {
        var c = connect(h);
        String p = base(c);
        var list = acls(acl(Perms.ALL, "digest", digest("dave:pw")), acl(Perms.READ, "world", "anyone"));
        c.zk.create(p + "/a", NOTHING, list, CreateMode.PERSISTENT);
        same(acls(acl(Perms.ALL, "digest", "dave:x"), acl(Perms.READ, "world", "anyone")), c.zk.getACL(p + "/a", null));
        c.zk.addAuthInfo("digest", bytes("dave:pw"));
        same(list, c.zk.getACL(p + "/a", null));
    }

    private void aclPermissions() throws Exception {
        var c = connect(h);
        String p = base(c);
        // The parent lets anyone create but not delete; the child lets anyone do nothing but be administered.
        c.zk.create(p + "/d", NOTHING, acls(acl(Perms.CREATE | Perms.ADMIN, "world", "anyone")), CreateMode.PERSISTENT);
        c.zk.create(p + "/d/x", NOTHING, acls(acl(Perms.ADMIN, "world", "anyone")), CreateMode.PERSISTENT);
        fails(Code.NOAUTH, () -> c.zk.delete(p + "/d/x", -1));
        fails(Code.NOAUTH, () -> c.zk.getChildren(p + "/d", false));
        fails(Code.NOAUTH, () -> c.zk.getAllChildrenNumber(p + "/d"));
        c.zk.getACL(p + "/d/x", null);
        // A multi fails at the op that is not allowed; check needs READ.
        try {
            c.zk.multi(List.of(Op.setData(p, NOTHING, -1), Op.check(p + "/d/x", 0)));
            throw new AssertionError("succeeded");
        } catch (KeeperException e) {
            same(List.of(0, -102), codes(e.getResults()));
        }
        // DELETE of the parent counts, not that of the node.
        c.zk.setACL(p + "/d", acls(acl(Perms.DELETE | Perms.ADMIN, "world", "anyone")), -1);
        fails(Code.NOAUTH, () -> c.create(p + "/d/y"));
        c.zk.delete(p + "/d/x", -1);
        c.zk.setACL(p + "/d", acls(acl(Perms.WRITE, "world", "anyone")), -1);
        c.zk.setData(p + "/d", NOTHING, -1);
        fails(Code.NOAUTH, () -> c.zk.setACL(p + "/d", Ids.OPEN_ACL_UNSAFE, -1));
        fails(Code.NOAUTH, () -> c.zk.getData(p + "/d", false, null));
        c.zk.delete(p + "/d", -1);
    }

    private void aclSuper() throws Exception {
        var c = connect(h);
        String p = base(c);
        c.zk.create(p + "/a", bytes("x"), acls(acl(Perms.ALL, "digest", digest("nobody:knows"))), CreateMode.PERSISTENT);
        c.zk.create(p + "/b", bytes("x"), acls(acl(Perms.READ, "ip", "203.0.113.9")), CreateMode.PERSISTENT);
        fails(Code.NOAUTH, () -> c.zk.getData(p + "/a", false, null));
        c.zk.addAuthInfo("digest", bytes("super:secret"));
        same(bytes("x"), c.zk.getData(p + "/a", false, null));
        same(acls(acl(Perms.ALL, "digest", digest("nobody:knows"))), c.zk.getACL(p + "/a", null));
        c.zk.setACL(p + "/b", Ids.OPEN_ACL_UNSAFE, -1);
        c.zk.setData(p + "/a", NOTHING, -1);
        var d = connect(h);
        d.zk.addAuthInfo("digest", bytes("super:guess"));
        fails(Code.NOAUTH, () -> d.zk.getData(p + "/a", false, null));
    }

    private void aclIp() throws Exception {
        var c = connect(h);
        String p = base(c);
        c.zk.create(p + "/here", bytes("x"), acls(acl(Perms.ALL, "ip", "127.0.0.1")), CreateMode.PERSISTENT);
        c.zk.create(p + "/net", bytes("x"), acls(acl(Perms.ALL, "ip", "127.0.0.0/8")), CreateMode.PERSISTENT);
        c.zk.create(p + "/other", bytes("x"), acls(acl(Perms.ALL, "ip", "10.1.2.3")), CreateMode.PERSISTENT);
        c.zk.create(p + "/other-net", bytes("x"), acls(acl(Perms.ALL, "ip", "10.0.0.0/8")), CreateMode.PERSISTENT);
        c.zk.getData(p + "/here", false, null);
        c.zk.getData(p + "/net", false, null);
        fails(Code.NOAUTH, () -> c.zk.getData(p + "/other", false, null));
        fails(Code.NOAUTH, () -> c.zk.getData(p + "/other-net", false, null));
        same(acls(acl(Perms.ALL, "ip", "127.0.0.0/8")), c.zk.getACL(p + "/net", null));
    }

    private void aclInvalid() throws Exception {
        var c = connect(h);
        String p = base(c);
        for (var bad : acls(
                acl(Perms.ALL, "nonsense", "x"), acl(Perms.ALL, "world", "someone"), acl(Perms.ALL, "digest", "without-colon"),
                acl(Perms.ALL, "digest", "a:b:c"), acl(Perms.ALL, "ip", "not-an-address"), acl(Perms.ALL, "ip", "10.0.0.0/64"))) {
            try {
                fails(Code.INVALIDACL, () -> c.zk.create(p + "/a", NOTHING, acls(bad), CreateMode.PERSISTENT));
                fails(Code.INVALIDACL, () -> c.zk.setACL(p, acls(bad), -1));
            } catch (AssertionError e) {
                throw new AssertionError(bad + " " + e.getMessage());
            }
        }
        same(Ids.OPEN_ACL_UNSAFE, c.zk.getACL(p, null));
        same(List.of(), c.zk.getChildren(p, false));
    }

    private void authFailure() throws Exception {
        var c = connect(h);
        c.zk.addAuthInfo("nonsense", bytes("x"));
        c.events.state(KeeperState.AuthFailed);
        fails(Code.AUTHFAILED, () -> c.zk.exists("/", false));
        same(ZooKeeper.States.AUTH_FAILED, c.zk.getState());
    }

    private void whoAmI() throws Exception {
        var c = connect(h);
        same(List.of("ip 127.0.0.1"), who(c));
        c.zk.addAuthInfo("digest", bytes("erin:pw"));
        same(List.of("digest erin", "ip 127.0.0.1"), who(c));
        c.zk.addAuthInfo("digest", bytes("super:secret"));
        same(List.of("digest erin", "digest super", "ip 127.0.0.1", "super "), who(c));
    }

    private static List<String> who(Handle c) throws Exception {
        return sorted(c.zk.whoAmI().stream().map(i -> i.getAuthScheme() + " " + i.getUser()).toList());
    }

    // ---- quota, system nodes

    private void quota() throws Exception {
        var c = connect(h);
        String p = base(c);
        c.create(p + "/a", bytes("12345"), CreateMode.PERSISTENT);
        String q = "/zookeeper/quota" + p;
        c.create(q);
        c.create(q + "/zookeeper_limits", bytes("count=-1,bytes=-1=;byteHardLimit=20;countHardLimit=3"), CreateMode.PERSISTENT);
        c.create(q + "/zookeeper_stats", bytes("count=0,bytes=0"), CreateMode.PERSISTENT);
        // The node itself is counted.
        eventually("the usage is counted: " + text(c, q + "/zookeeper_stats"), () -> text(c, q + "/zookeeper_stats").startsWith("count=2,bytes=5"));
        c.create(p + "/b");
        same("count=3,bytes=5", text(c, q + "/zookeeper_stats"));
        fails(Code.QUOTAEXCEEDED, () -> c.create(p + "/c"));
        fails(Code.QUOTAEXCEEDED, () -> c.create(p + "/a/deep"));
        fails(Code.QUOTAEXCEEDED, () -> c.create(p + "/s-", NOTHING, CreateMode.EPHEMERAL_SEQUENTIAL));
        fails(Code.QUOTAEXCEEDED, () -> c.zk.setData(p + "/b", new byte[16], -1));
        fails(Code.QUOTAEXCEEDED, () -> c.zk.multi(List.of(Op.create(p + "/c", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT))));
        c.zk.setData(p + "/b", new byte[15], -1);
        same("count=3,bytes=20", text(c, q + "/zookeeper_stats"));
        // Shrinking is allowed at the limit, and makes room.
        c.zk.setData(p + "/b", new byte[3], -1);
        c.zk.delete(p + "/a", -1);
        same("count=2,bytes=3", text(c, q + "/zookeeper_stats"));
        c.create(p + "/c", new byte[17], CreateMode.PERSISTENT);
        // Without the limit there is none; a neighbour was never limited.
        c.create(p + "-neighbour", new byte[100], CreateMode.PERSISTENT);
        c.zk.delete(q + "/zookeeper_limits", -1);
        c.zk.delete(q + "/zookeeper_stats", -1);
        c.create(p + "/d", new byte[100], CreateMode.PERSISTENT);
    }

    private static String text(Handle c, String path) throws Exception {
        return new String(c.zk.getData(path, false, null), StandardCharsets.UTF_8);
    }

    private void systemNodes() throws Exception {
        var c = connect(h);
        check(c.zk.getChildren("/", false).contains("zookeeper"), "/zookeeper is there");
        same(List.of("config", "quota"), sorted(c.zk.getChildren("/zookeeper", false)));
        same(acls(acl(Perms.READ, "world", "anyone")), c.zk.getACL("/zookeeper/config", null));
        same(0, c.zk.getConfig(false, new Stat()).length, "the configuration of a standalone server is empty");
        fails(Code.NOAUTH, () -> c.zk.setData("/zookeeper/config", bytes("x"), -1));
        same(Ids.OPEN_ACL_UNSAFE, c.zk.getACL("/", null));
    }

    private void configAndReconfig() throws Exception {
        var c = connect(h);
        var w = new Events();
        same(NOTHING, c.zk.getConfig(w, null));
        var admin = h.closing(new ZooKeeperAdmin(h.servers, 10_000, new Events()));
        fails(Code.RECONFIGDISABLED, () -> admin.reconfigure("server.9=127.0.0.1:1:2;3", null, null, -1, null));
        admin.addAuthInfo("digest", bytes("super:secret"));
        fails(Code.RECONFIGDISABLED, () -> admin.reconfigure(null, "1", null, -1, null));
        w.none(c.zk);
    }

    // ---- chroot, read-only flag, sizes

    private void chroot() throws Exception {
        var c = connect(h);
        String p = base(c);
        var inside = connect(h, h.servers + p, 10_000);
        same("/a", inside.create("/a", bytes("x"), CreateMode.PERSISTENT));
        same("/a/s-0000000000", inside.create("/a/s-", NOTHING, CreateMode.PERSISTENT_SEQUENTIAL));
        check(c.has(p + "/a/s-0000000000"), "the node is below the chroot");
        same(List.of("a"), inside.zk.getChildren("/", false));
        var w = new Events();
        inside.zk.getChildren("/", w);
        inside.zk.getData("/a", w, null);
        inside.zk.addWatch("/r", w, AddWatchMode.PERSISTENT_RECURSIVE);
        c.create(p + "/r");
        c.zk.setData(p + "/a", NOTHING, -1);
        same(Set.of("NodeChildrenChanged /", "NodeCreated /r", "NodeDataChanged /a"), new HashSet<>(w.drain(inside.zk)));
        var results = inside.zk.multi(List.of(
                Op.create("/m", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT),
                Op.create("/m/n", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.EPHEMERAL)));
        same(2, results.size());
        check(c.has(p + "/m/n"), "a multi goes below the chroot");
        var lost = connect(h, h.servers + p + "/not-there", 10_000);
        fails(Code.NONODE, () -> lost.create("/a"));
    }

    private void readOnlyFlag() throws Exception {
        var events = new Events();
        var c = h.closing(new Handle(new ZooKeeper(h.servers, 10_000, events, true), events));
        events.state(KeeperState.SyncConnected);
        same(ZooKeeper.States.CONNECTED, c.zk.getState());
        String p = base(c);
        c.zk.setData(p, bytes("x"), -1);
    }

    private void largeData() throws Exception {
        var c = connect(h);
        String p = base(c);
        var data = new byte[1_000_000];
        for (int i = 0; i < data.length; i++) data[i] = (byte) (i * 31 + i / 253);
        c.create(p + "/big", data, CreateMode.PERSISTENT);
        same(data, c.zk.getData(p + "/big", false, null));
        data[999_999]++;
        same(1_000_000, c.zk.setData(p + "/big", data, 0).getDataLength());
        same(data, connect(h).zk.getData(p + "/big", false, null));
    }

    private void tooLargeRequest() throws Exception {
        var c = connect(h);
        String p = base(c);
        long session = c.zk.getSessionId();
        c.create(p + "/e", NOTHING, CreateMode.EPHEMERAL);
        c.events.forgetStates();
        // Over the packet limit of the server: it closes the connection, and the session lives on.
        fails(Code.CONNECTIONLOSS, () -> c.create(p + "/big", new byte[1_048_576], CreateMode.PERSISTENT));
        c.events.state(KeeperState.Disconnected);
        c.events.state(KeeperState.SyncConnected);
        same(session, c.zk.getSessionId());
        same(List.of("e"), c.zk.getChildren(p, false));
        // The largest packet that is let in: 1,048,575 bytes behind the length field.
        int around = 8 + 4 + (p + "/max").length() + 4 + 4 + (4 + 4 + 5 + 4 + 6) + 4;
        c.create(p + "/max", new byte[1_048_575 - around], CreateMode.PERSISTENT);
        same(1_048_575 - around, c.zk.exists(p + "/max", false).getDataLength());
    }

    // ---- reconnecting and sessions

    private void reconnectReplaysWatches() throws Exception {
        var writer = connect(h);
        String p = base(writer);
        for (String name : List.of("changed", "deleted", "children", "quiet", "gone-child", "exists-deleted")) writer.create(p + "/" + name);
        writer.create(p + "/children/old");
        var tap = h.closing(new Tap(h.servers));
        var c = connect(h, tap.address(), 20_000);
        var w = new Events();
        var persistent = new Events();
        c.zk.getData(p + "/changed", w, null);
        c.zk.getData(p + "/deleted", w, null);
        c.zk.exists(p + "/created", w);
        var replayed = new Events();
        c.zk.exists(p + "/created", replayed);
        c.zk.exists(p + "/exists-deleted", w);
        c.zk.getChildren(p + "/children", w);
        c.zk.getChildren(p + "/gone-child", w);
        c.zk.getData(p + "/quiet", w, null);
        c.zk.getChildren(p + "/quiet", w);
        c.zk.exists(p + "/later", w);
        c.zk.addWatch(p + "/quiet", persistent, AddWatchMode.PERSISTENT);
        c.zk.addWatch(p + "/later", persistent, AddWatchMode.PERSISTENT_RECURSIVE);
        long session = c.zk.getSessionId();
        c.events.forgetStates();
        tap.cut();
        c.events.state(KeeperState.Disconnected);
        writer.zk.setData(p + "/changed", bytes("1"), -1);
        writer.zk.delete(p + "/deleted", -1);
        writer.create(p + "/created");
        writer.zk.delete(p + "/exists-deleted", -1);
        writer.create(p + "/children/new");
        writer.zk.delete(p + "/gone-child", -1);
        tap.mend();
        c.events.state(KeeperState.SyncConnected);
        same(session, c.zk.getSessionId());
        // What happened meanwhile is told at once, each once.
        same(sorted(List.of("NodeDataChanged " + p + "/changed", "NodeDeleted " + p + "/deleted", "NodeCreated " + p + "/created",
                "NodeDeleted " + p + "/exists-deleted", "NodeChildrenChanged " + p + "/children", "NodeDeleted " + p + "/gone-child")),
                sorted(w.drain(c.zk)));
        same(-1L, replayed.expect(EventType.NodeCreated, p + "/created").getZxid(), "zxid of a replayed event");
        // The others are still armed.
        writer.zk.setData(p + "/quiet", bytes("1"), -1);
        writer.create(p + "/quiet/x");
        writer.create(p + "/later");
        same(List.of("NodeDataChanged " + p + "/quiet", "NodeChildrenChanged " + p + "/quiet", "NodeCreated " + p + "/later"), w.drain(c.zk));
        same(List.of("NodeDataChanged " + p + "/quiet", "NodeChildrenChanged " + p + "/quiet", "NodeCreated " + p + "/later"),
                persistent.drain(c.zk));
        // The persistent ones stay.
        writer.zk.setData(p + "/quiet", bytes("2"), -1);
        writer.create(p + "/later/x");
        same(List.of("NodeDataChanged " + p + "/quiet", "NodeCreated " + p + "/later/x"), persistent.drain(c.zk));
        w.none(c.zk);
    }

    /** More paths than go into one SetWatches packet. */
    private void reconnectManyWatches() throws Exception {
        var writer = connect(h);
        String p = base(writer);
        String filler = "x".repeat(200);
        int n = 2000;
        var tap = h.closing(new Tap(h.servers));
        var c = connect(h, tap.address(), 20_000);
        var w = new Events();
        var set = new CountDownLatch(n);
        AsyncCallback.StatCallback cb = (rc, path, ctx, stat) -> set.countDown();
        for (int i = 0; i < n; i++) c.zk.exists(p + "/" + filler + i, w, cb, null);
        check(set.await(20L * Harness.SLOW, TimeUnit.SECONDS), "the watches are set");
        c.events.forgetStates();
        tap.cut();
        c.events.state(KeeperState.Disconnected);
        tap.mend();
        c.events.state(KeeperState.SyncConnected);
        // Connected is not yet armed: the client sends its watches behind the handshake. What waits behind them shows that they are set;
        // before that, events would come in the order of the packet's lists instead of the writer's.
        c.zk.exists("/", false);
        var expected = new ArrayList<String>();
        for (int i = 0; i < n; i += 100) {
            writer.create(p + "/" + filler + i);
            expected.add("NodeCreated " + p + "/" + filler + i);
        }
        same(expected, w.drain(c.zk));
    }

    private void sessionTimeoutBounds() throws Exception {
        // Twice and, as configured, eighty times the tick of 500 ms.
        same(1000, connect(h, h.servers, 10).zk.getSessionTimeout());
        same(40_000, connect(h, h.servers, 10_000_000).zk.getSessionTimeout());
        same(7_777, connect(h, h.servers, 7_777).zk.getSessionTimeout());
    }

    private void sessionExpires() throws Exception {
        var c = connect(h);
        String p = base(c);
        var tap = h.closing(new Tap(h.servers));
        var dying = connect(h, tap.address(), 1500);
        dying.create(p + "/e", NOTHING, CreateMode.EPHEMERAL);
        var w = new Events();
        c.zk.exists(p + "/e", w);
        long begin = System.nanoTime();
        tap.freeze();
        w.expect(EventType.NodeDeleted, p + "/e");
        long ms = Harness.millisSince(begin);
        check(ms > 700, "the ephemeral lived about as long as its session's timeout, only " + ms + " ms");
        check(ms < 10_000L * Harness.SLOW, "it lived " + ms + " ms");
        tap.cut();
        tap.mend();
        dying.events.state(KeeperState.Expired);
        fails(Code.SESSIONEXPIRED, () -> dying.zk.exists("/", false));
        same(ZooKeeper.States.CLOSED, dying.zk.getState());
    }

    /** A session that never pings. */
    private void sessionOfRawSocketExpires() throws Exception {
        var c = connect(h);
        String p = base(c);
        var w = new Events();
        var raw = Raw.connect(h, 1000 * Harness.SLOW);
        same(1000 * Harness.SLOW, raw.timeout);
        c.zk.exists(p + "/raw", w);
        raw.request(1, OpCode.create, d -> {
            Raw.string(d, p + "/raw");
            d.writeInt(-1); // null
            d.writeInt(1);
            d.writeInt(Perms.ALL);
            Raw.string(d, "world");
            Raw.string(d, "anyone");
            d.writeInt(1);
        });
        var reply = raw.reply();
        same(1, reply.xid());
        same(0, reply.error());
        w.expect(EventType.NodeCreated, p + "/raw");
        var stat = c.zk.exists(p + "/raw", w);
        if (stat != null) {
            same(raw.session, stat.getEphemeralOwner());
            same(reply.zxid(), stat.getCzxid());
            w.expect(EventType.NodeDeleted, p + "/raw");
        }
        check(!c.has(p + "/raw"), "the ephemeral is gone");
        raw.ends();
    }

    /** A session that is taken over elsewhere: its old connection is ended at once. */
    private void sessionTakenOver() throws Exception {
        var raw = Raw.connect(h, 10_000);
        var c = Handle.resume(h, h.servers, 10_000, raw.session, raw.password);
        c.events.state(KeeperState.SyncConnected);
        same(raw.session, c.zk.getSessionId());
        raw.ends();
        c.zk.exists("/", false);
    }

    // ---- by hand

    private void rawHandshake() throws Exception {
        var raw = new Raw(h);
        same(36, raw.hello(0, 5000, 0, new byte[16], false), "without the read-only byte the answer has none");
        same(16, raw.password.length);
        same(5000, raw.timeout);
        // The same session again, by its id and password.
        var again = new Raw(h);
        same(37, again.hello(0, 6000, raw.session, raw.password, true));
        same(raw.session, again.session);
        same(raw.password, again.password);
        same(6000, again.timeout, "the timeout is agreed anew");
        raw.ends();
        // A wrong password and an unknown session look alike: timeout 0, session 0, a password of zeros, and the end.
        for (long session : new long[] {again.session, 0x7700000000000001L}) {
            var refused = new Raw(h);
            same(37, refused.hello(0, 5000, session, new byte[16], true));
            same(0, refused.timeout);
            same(0L, refused.session);
            same(new byte[16], refused.password);
            refused.ends();
        }
        // Who has seen more than this server knows is sent away without an answer.
        same(-1, new Raw(h).hello(Long.MAX_VALUE, 5000, 0, new byte[16], true));
    }

    private void rawPing() throws Exception {
        var c = connect(h);
        var raw = Raw.connect(h, 5000);
        raw.request(-2, OpCode.ping, d -> { });
        var reply = raw.reply();
        same(-2, reply.xid());
        same(0, reply.error());
        same(0, reply.body().length);
        long last = c.zk.exists(base(c), false).getCzxid();
        raw.request(-2, OpCode.ping, d -> { });
        check(raw.reply().zxid() >= last, "a ping tells the last zxid");
    }

    private void rawUnknownRequests() throws Exception {
        for (int type : new int[] {0, OpCode.check, 10, 99, 12345, -77}) {
            var raw = Raw.connect(h, 5000);
            raw.request(7, type, d -> Raw.string(d, "/"));
            var reply = raw.reply();
            same(7, reply.xid(), "type " + type);
            same(Code.UNIMPLEMENTED.intValue(), reply.error(), "type " + type);
            raw.ends();
        }
    }

    private void rawBadLengths() throws Exception {
        for (int length : new int[] {-1, Integer.MIN_VALUE, 1_048_576, Integer.MAX_VALUE}) {
            var raw = Raw.connect(h, 5000);
            raw.out.writeInt(length);
            raw.ends();
        }
    }

    /** A request that cannot be read is answered, and the connection goes on. */
    private void rawBadRecords() throws Exception {
        var raw = Raw.connect(h, 5000);
        for (int type : new int[] {OpCode.create, OpCode.getData, OpCode.exists, OpCode.multi, OpCode.setACL}) {
            raw.request(type, type, d -> d.writeInt(1000));
            var reply = raw.reply();
            same(type, reply.xid());
            same(Code.MARSHALLINGERROR.intValue(), reply.error(), "type " + type);
            same(0, reply.body().length);
        }
        raw.request(-2, OpCode.ping, d -> { });
        same(-2, raw.reply().xid());
    }

    /** The server, not only the client library, refuses bad paths; whether the parent is there is asked first. */
    private void rawBadPaths() throws Exception {
        String p = base(connect(h));
        var raw = Raw.connect(h, 5000);
        for (String path : List.of("", "x", "//a", p + "/", p + "/.", p + "/..", p + "/a\u0000b", p + "/\u0001", p + "/\u001f", p + "/\u007f",
                p + "/\u009f", p + "/\uf8ff", p + "/\ufff0")) {
            same(Code.BADARGUMENTS.intValue(), rawCreate(raw, path, 0), "create of '" + path + "'");
        }
        for (String path : List.of(p + "//b", p + "/./b", "/missing/..", p + "/missing/x/")) {
            same(Code.NONODE.intValue(), rawCreate(raw, path, 0), "create of '" + path + "'");
        }
        for (String path : List.of(p + "/...", p + "/.a", p + "/ ", p + "/\u00a0", p + "/\uf900")) {
            same(0, rawCreate(raw, path, 0), "create of '" + path + "'");
        }
        // A sequential name may be empty before its number.
        same(0, rawCreate(raw, p + "/", 2), "sequential create of '" + p + "/'");
        same(Code.BADARGUMENTS.intValue(), rawCreate(raw, p + "/bad-flags", 77), "unknown flags");
    }

    private static int rawCreate(Raw raw, String path, int flags) throws Exception {
        raw.request(1, OpCode.create, d -> {
            Raw.string(d, path);
            d.writeInt(0);
            d.writeInt(1);
            d.writeInt(Perms.ALL);
            Raw.string(d, "world");
            Raw.string(d, "anyone");
            d.writeInt(flags);
        });
        return raw.reply().error();
    }

    private void rawAuth() throws Exception {
        var raw = Raw.connect(h, 5000);
        Raw.Body good = d -> {
            d.writeInt(0);
            Raw.string(d, "digest");
            Raw.string(d, "user:pw");
        };
        raw.request(-4, 100, good);
        var reply = raw.reply();
        same(-4, reply.xid());
        same(0L, reply.zxid());
        same(0, reply.error());
        raw.request(-4, 100, d -> {
            d.writeInt(0);
            Raw.string(d, "nonsense");
            Raw.string(d, "x");
        });
        reply = raw.reply();
        same(-4, reply.xid());
        same(Code.AUTHFAILED.intValue(), reply.error());
        raw.ends();
    }

    private void rawCloseSession() throws Exception {
        var raw = Raw.connect(h, 5000);
        raw.request(3, OpCode.closeSession, d -> { });
        var reply = raw.reply();
        same(3, reply.xid());
        same(0, reply.error());
        raw.ends();
        var again = new Raw(h);
        again.hello(0, 5000, raw.session, raw.password, true);
        same(0, again.timeout, "a closed session is gone");
    }

    private void sessionMoves() throws Exception {
        var observer = connect(h);
        String p = base(observer);
        var tap = h.closing(new Tap(h.servers));
        var first = connect(h, tap.address(), 20_000);
        first.create(p + "/e", NOTHING, CreateMode.EPHEMERAL);
        var lost = new Events();
        first.zk.getData(p, lost, null);
        long session = first.zk.getSessionId();
        // The second handle takes the session over while the first is still connected: the server ends the first connection.
        first.events.forgetStates();
        tap.freeze();
        var second = Handle.resume(h, h.servers, 20_000, session, first.zk.getSessionPasswd());
        second.events.state(KeeperState.SyncConnected);
        same(session, second.zk.getSessionId());
        same(first.zk.getSessionPasswd(), second.zk.getSessionPasswd());
        same(session, second.zk.exists(p + "/e", false).getEphemeralOwner());
        same(List.of(p + "/e"), second.zk.getEphemerals());
        tap.cut();
        first.events.state(KeeperState.Disconnected);
        second.create(p + "/f", NOTHING, CreateMode.EPHEMERAL);
        same(List.of("e", "f"), sorted(observer.zk.getChildren(p, false)));
        second.zk.close();
        same(List.of(), observer.zk.getChildren(p, false));
        tap.mend();
        first.events.state(KeeperState.Expired);
    }

    private void sessionWrongPassword() throws Exception {
        var c = connect(h);
        String p = base(c);
        c.create(p + "/e", NOTHING, CreateMode.EPHEMERAL);
        var password = c.zk.getSessionPasswd().clone();
        password[3]++;
        var thief = Handle.resume(h, h.servers, 10_000, c.zk.getSessionId(), password);
        thief.events.state(KeeperState.Expired);
        // The rightful owner keeps the session.
        eventually("the owner is connected", () -> {
            try {
                return c.has(p + "/e");
            } catch (KeeperException.ConnectionLossException e) {
                return false;
            }
        });
    }

    private void sessionClosedIsGone() throws Exception {
        var c = connect(h);
        long session = c.zk.getSessionId();
        var password = c.zk.getSessionPasswd();
        c.zk.close();
        var again = Handle.resume(h, h.servers, 10_000, session, password);
        again.events.state(KeeperState.Expired);
    }

    // ---- the server is killed

    private void killKeepsSessionAndData() throws Exception {
        var c = connect(h, h.servers, 20_000);
        String p = base(c);
        c.create(p + "/null", null, CreateMode.PERSISTENT);
        c.create(p + "/empty", NOTHING, CreateMode.PERSISTENT);
        c.create(p + "/data", bytes("abc"), CreateMode.PERSISTENT);
        c.create(p + "/e", bytes("abc"), CreateMode.EPHEMERAL);
        c.create(p + "/c", NOTHING, CreateMode.CONTAINER);
        c.zk.create(p + "/ttl", NOTHING, Ids.OPEN_ACL_UNSAFE, CreateMode.PERSISTENT_WITH_TTL, null, 600_000);
        c.zk.addAuthInfo("digest", bytes("frank:pw"));
        c.zk.create(p + "/mine", bytes("m"), Ids.CREATOR_ALL_ACL, CreateMode.PERSISTENT);
        c.zk.delete(p + "/empty", -1);
        c.create(p + "/empty", NOTHING, CreateMode.PERSISTENT);
        c.zk.setData(p + "/data", bytes("abcd"), 0);
        var stats = new ArrayList<Stat>();
        var names = sorted(c.zk.getChildren(p, false));
        for (String n : names) stats.add(c.zk.exists(p + "/" + n, false));
        var parent = c.zk.exists(p, false);
        long session = c.zk.getSessionId();
        c.events.forgetStates();
        h.control("restart");
        c.events.state(KeeperState.SyncConnected);
        same(session, c.zk.getSessionId());
        same(parent, c.zk.exists(p, false));
        for (int i = 0; i < names.size(); i++) same(stats.get(i), c.zk.exists(p + "/" + names.get(i), false), names.get(i));
        same(null, c.zk.getData(p + "/null", false, null));
        same(NOTHING, c.zk.getData(p + "/empty", false, null));
        same(bytes("m"), c.zk.getData(p + "/mine", false, null));
        same(List.of(p + "/e"), c.zk.getEphemerals());
        var last = c.zk.setData(p, NOTHING, -1).getMzxid();
        check(last > parent.getPzxid(), "zxids go on rising");
        same(p + "/s-0000000008", c.create(p + "/s-", NOTHING, CreateMode.PERSISTENT_SEQUENTIAL), "sequence numbers go on");
        // Still an ephemeral: it goes with its session.
        var other = connect(h);
        c.zk.close();
        check(!other.has(p + "/e"), "the ephemeral went with its session");
    }

    private void killKeepsWatches() throws Exception {
        var c = connect(h, h.servers, 20_000);
        var writer = connect(h, h.servers, 20_000);
        String p = base(c);
        c.create(p + "/d");
        var w = new Events();
        c.zk.getData(p + "/d", w, null);
        c.zk.exists(p + "/x", w);
        c.zk.getChildren(p, w);
        c.zk.addWatch(p + "/d", w, AddWatchMode.PERSISTENT_RECURSIVE);
        c.events.forgetStates();
        writer.events.forgetStates();
        h.control("restart");
        c.events.state(KeeperState.SyncConnected);
        writer.events.state(KeeperState.SyncConnected);
        w.none(c.zk);
        writer.create(p + "/x");
        writer.zk.setData(p + "/d", bytes("1"), -1);
        writer.create(p + "/d/deep");
        same(List.of("NodeCreated " + p + "/d/deep", "NodeChildrenChanged " + p, "NodeCreated " + p + "/x", "NodeDataChanged " + p + "/d")
                .stream().sorted().toList(), sorted(w.drain(c.zk)));
    }

    /**
     * The server is down for longer than the session's timeout; started again, it gives each session its full time anew.
     * The handle itself gives up after 4/3 of the timeout, which is the sign that the outage was long enough.
     */
    private void longOutageExpiresNoSession() throws Exception {
        var c = connect(h, h.servers, 3000 * Harness.SLOW);
        String p = base(c);
        c.create(p + "/e", NOTHING, CreateMode.EPHEMERAL);
        long session = c.zk.getSessionId();
        var password = c.zk.getSessionPasswd().clone();
        h.control("kill");
        c.events.state(KeeperState.Expired);
        h.control("start");
        var d = Handle.resume(h, h.servers, 3000 * Harness.SLOW, session, password);
        d.events.state(KeeperState.SyncConnected);
        same(session, d.zk.getSessionId());
        same(session, d.zk.exists(p + "/e", false).getEphemeralOwner());
        same(List.of(p + "/e"), d.zk.getEphemerals());
    }

    /** What was acknowledged before or between two kills is there afterwards, in order. */
    private void writesWhileKilled() throws Exception {
        var c = connect(h, h.servers, 20_000);
        String p = base(c);
        var acknowledged = Collections.synchronizedSet(new TreeSet<String>());
        var stop = new CountDownLatch(1);
        var writer = new Thread(() -> {
            for (int i = 0; stop.getCount() > 0; i++) {
                try {
                    acknowledged.add(c.create(p + "/n-" + String.format("%06d", i)).substring(p.length() + 1));
                } catch (KeeperException.ConnectionLossException e) {
                    // Not known whether it was written: either is right.
                } catch (Exception e) {
                    return;
                }
            }
        });
        writer.setDaemon(true);
        writer.start();
        for (int round = 0; round < 2; round++) {
            int before = acknowledged.size();
            eventually("writes go on", () -> acknowledged.size() > before + 200);
            h.control("restart");
        }
        int before = acknowledged.size();
        eventually("writes go on", () -> acknowledged.size() > before + 50);
        stop.countDown();
        writer.join(20_000L * Harness.SLOW);
        var there = new TreeSet<>(c.zk.getChildren(p, false));
        var missing = new TreeSet<>(acknowledged);
        missing.removeAll(there);
        same(Set.of(), missing, "acknowledged writes that are gone");
    }
}
