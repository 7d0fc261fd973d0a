package clients;

import org.apache.zookeeper.CreateMode;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.Watcher.Event.KeeperState;
import org.apache.zookeeper.ZooDefs.Ids;
import org.apache.zookeeper.ZooKeeper;

/** One client handle with the events of its default watcher. */
final class Handle implements AutoCloseable {
    static final byte[] NOTHING = {};

    final Events events;
    final ZooKeeper zk;

    Handle(ZooKeeper zk, Events events) {
        this.zk = zk;
        this.events = events;
    }

    static Handle connect(Harness h, String servers, int timeoutMs) throws Exception {
        var events = new Events();
        var handle = h.closing(new Handle(new ZooKeeper(servers, timeoutMs, events), events));
        events.state(KeeperState.SyncConnected);
        return handle;
    }

    static Handle connect(Harness h) throws Exception {
        return connect(h, h.servers, 10_000);
    }

    /** A handle that goes on with the session of another. */
    static Handle resume(Harness h, String servers, int timeoutMs, long id, byte[] password) throws Exception {
        var events = new Events();
        return h.closing(new Handle(new ZooKeeper(servers, timeoutMs, events, id, password), events));
    }

    String create(String path) throws Exception {
        return create(path, NOTHING, CreateMode.PERSISTENT);
    }

    String create(String path, byte[] data, CreateMode mode) throws Exception {
        return zk.create(path, data, Ids.OPEN_ACL_UNSAFE, mode);
    }

    boolean has(String path) throws Exception {
        return zk.exists(path, false) != null;
    }

    @Override
    public void close() throws Exception {
        zk.close();
    }

    interface Request {
        void run() throws Exception;
    }

    /** The request must fail with this code. */
    static void fails(KeeperException.Code code, Request request) throws Exception {
        try {
            request.run();
        } catch (KeeperException e) {
            Harness.same(code, e.code(), "error code");
            return;
        }
        throw new AssertionError("succeeded, expected " + code);
    }
}
