package clients;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.zookeeper.AsyncCallback;
import org.apache.zookeeper.WatchedEvent;
import org.apache.zookeeper.Watcher;
import org.apache.zookeeper.Watcher.Event.EventType;
import org.apache.zookeeper.ZooKeeper;

/** A watcher that keeps what it is told; connection states and node events apart. */
final class Events implements Watcher {
    private final LinkedBlockingQueue<WatchedEvent> nodes = new LinkedBlockingQueue<>();
    private final LinkedBlockingQueue<Event.KeeperState> states = new LinkedBlockingQueue<>();

    @Override
    public void process(WatchedEvent e) {
        if (e.getType() == EventType.None) states.add(e.getState());
        else nodes.add(e);
    }

    /** The next node event, which must be this one. */
    WatchedEvent expect(EventType type, String path) throws Exception {
        WatchedEvent e = nodes.poll(15L * Harness.SLOW, TimeUnit.SECONDS);
        if (e == null) throw new TimeoutException("no event, expected " + type + " " + path);
        Harness.same(type + " " + path, e.getType() + " " + e.getPath(), "event");
        return e;
    }

    /** Waits for this connection state, passing over others. */
    void state(Event.KeeperState wanted) throws Exception {
        var seen = new ArrayList<Event.KeeperState>();
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(25L * Harness.SLOW);
        while (true) {
            var s = states.poll(end - System.nanoTime(), TimeUnit.NANOSECONDS);
            if (s == wanted) return;
            if (s == null) throw new TimeoutException("state " + wanted + " did not come, only " + seen);
            seen.add(s);
        }
    }

    void forgetStates() {
        states.clear();
    }

    /**
     * No node event has come, and none is on its way: whatever the server sent before its answer to one more
     * request of this handle has been delivered, because the client hands out events and answers in one order.
     */
    void none(ZooKeeper zk) throws Exception {
        barrier(zk);
        Harness.same(List.of(), List.copyOf(nodes), "events");
    }

    /** All node events that came before the server's answer to one more request, as "Type path". */
    List<String> drain(ZooKeeper zk) throws Exception {
        barrier(zk);
        var all = new ArrayList<WatchedEvent>();
        nodes.drainTo(all);
        return all.stream().map(e -> e.getType() + " " + e.getPath()).toList();
    }

    private static void barrier(ZooKeeper zk) throws Exception {
        var done = new CountDownLatch(1);
        AsyncCallback.VoidCallback cb = (rc, path, ctx) -> done.countDown();
        zk.sync("/", cb, null);
        if (!done.await(15L * Harness.SLOW, TimeUnit.SECONDS)) throw new TimeoutException("sync was not answered");
    }
}
