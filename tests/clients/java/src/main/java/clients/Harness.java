package clients;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.logging.LogManager;

/**
 * Runs named tests one after the other, each with a time limit, and prints PASS or FAIL per test.
 *
 * <p>Arguments: --servers HOST:PORT [--only NAME[,NAME...]]. Environment: SERVER_CTL is the control
 * script of the server under test (tests that need it are skipped without), SLOW multiplies every limit.
 */
final class Harness {
    /** What a test does; anything it throws is the reason of its failure. */
    interface Test {
        void run() throws Exception;
    }

    private record Case(Test test, int seconds, boolean needsControl, boolean must) {}

    static final int SLOW = Integer.parseInt(System.getenv().getOrDefault("SLOW", "1"));
    private static final String CONTROL = System.getenv("SERVER_CTL");

    final String servers;
    private final String suite;
    private final List<String> only;
    private final Map<String, Case> cases = new LinkedHashMap<>();
    private final List<AutoCloseable> open = new ArrayList<>();

    Harness(String suite, String[] args) {
        LogManager.getLogManager().reset(); // what a library tells this way is not part of the output
        this.suite = suite;
        String servers = null;
        List<String> only = List.of();
        for (int i = 0; i + 1 < args.length; i += 2) {
            switch (args[i]) {
                case "--servers" -> servers = args[i + 1];
                case "--only" -> only = Arrays.asList(args[i + 1].split(","));
                default -> throw new IllegalArgumentException("unknown option " + args[i]);
            }
        }
        this.servers = Objects.requireNonNull(servers, "--servers HOST:PORT is missing");
        this.only = only;
    }

    Harness test(String name, Test test) {
        return add(name, new Case(test, 30, false, false));
    }

    /** A test that kills or restarts the server under test. */
    Harness disturb(String name, Test test) {
        return add(name, new Case(test, 60, true, false));
    }

    /** A test without which the ones after it make no sense: when it fails, the run ends. */
    Harness must(String name, Test test) {
        return add(name, new Case(test, 60, false, true));
    }

    private Harness add(String name, Case c) {
        if (cases.put(name, c) != null) throw new IllegalArgumentException("two tests named " + name);
        return this;
    }

    /** Runs everything and ends the process: status 1 when a test failed. */
    void run() {
        int failed = 0;
        int ran = 0;
        long begin = System.nanoTime();
        for (var e : cases.entrySet()) {
            if (!only.isEmpty() && !only.contains(e.getKey())) continue;
            String name = suite + "/" + e.getKey();
            Case c = e.getValue();
            if (c.needsControl && CONTROL == null) {
                System.out.println("SKIP " + name + ": SERVER_CTL is not set");
                continue;
            }
            ran++;
            long t = System.nanoTime();
            String reason = attempt(c);
            if (reason == null) {
                System.out.printf("PASS %s (%d ms)%n", name, millisSince(t));
            } else {
                failed++;
                System.out.println("FAIL " + name + ": " + reason);
            }
            System.out.flush();
            if (reason != null && c.must) break;
        }
        System.out.printf("%s: %d passed, %d failed, %.1f s%n", suite, ran - failed, failed, millisSince(begin) / 1e3);
        System.out.flush();
        System.exit(failed == 0 && ran > 0 ? 0 : 1);
    }

    private String attempt(Case c) {
        var task = new FutureTask<Void>(() -> {
            c.test.run();
            return null;
        });
        var thread = new Thread(task, "test");
        thread.setDaemon(true);
        thread.start();
        int limit = c.seconds * SLOW;
        String reason;
        try {
            task.get(limit, TimeUnit.SECONDS);
            reason = null;
        } catch (ExecutionException e) {
            reason = describe(e.getCause());
        } catch (TimeoutException e) {
            var trace = new StringBuilder("not done within " + limit + " s, at");
            for (var f : thread.getStackTrace()) {
                if (f.getClassName().startsWith("clients.")) trace.append(' ').append(f);
            }
            reason = trace.toString();
            thread.interrupt();
        } catch (InterruptedException e) {
            reason = "interrupted";
        }
        closeAll();
        return reason;
    }

    private static String describe(Throwable e) {
        var text = new StringBuilder(String.valueOf(e));
        for (var f : e.getStackTrace()) {
            if (f.getClassName().startsWith("clients.") && !f.getClassName().startsWith("clients.Harness")) {
                text.append(" at ").append(f.getFileName()).append(':').append(f.getLineNumber());
            }
        }
        if (e.getCause() != null && e.getCause() != e) text.append("; caused by ").append(e.getCause());
        return text.toString().replace('\n', ' ');
    }

    /** Closes this when the running test is over, whatever its end. */
    synchronized <T extends AutoCloseable> T closing(T c) {
        open.add(c);
        return c;
    }

    private void closeAll() {
        List<AutoCloseable> all;
        synchronized (this) {
            all = new ArrayList<>(open);
            open.clear();
        }
        var closer = new Thread(() -> {
            for (int i = all.size() - 1; i >= 0; i--) {
                try {
                    all.get(i).close();
                } catch (Exception | AssertionError e) {
                    // Closing is for the sake of the next test only: the verdict of this one stands.
                }
            }
        });
        closer.setDaemon(true);
        closer.start();
        try {
            closer.join(10_000L * SLOW);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    /** Runs a verb of the control script: kill, start, restart. */
    void control(String verb) throws Exception {
        var p = new ProcessBuilder(CONTROL, verb).redirectErrorStream(true).start();
        p.getOutputStream().close();
        String out = new String(p.getInputStream().readAllBytes());
        int status = p.waitFor();
        check(status == 0, "server " + verb + " ended with " + status + ": " + out);
    }

    static long millisSince(long nanos) {
        return (System.nanoTime() - nanos) / 1_000_000;
    }

    /** Polls until the condition holds; fails after 15 s. */
    static void eventually(String what, Callable<Boolean> condition) throws Exception {
        eventually(what, 15, condition);
    }

    static void eventually(String what, int seconds, Callable<Boolean> condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos((long) seconds * SLOW);
        while (!condition.call()) {
            check(System.nanoTime() < end, "within " + seconds * SLOW + " s: " + what);
            Thread.sleep(5);
        }
    }

    static void check(boolean ok, String what) {
        if (!ok) throw new AssertionError(what);
    }

    static void same(Object expected, Object got) {
        same(expected, got, "value");
    }

    static void same(Object expected, Object got, String what) {
        boolean equal = expected instanceof byte[] a && got instanceof byte[] b ? Arrays.equals(a, b)
                : expected instanceof Number a && got instanceof Number b ? a.longValue() == b.longValue()
                : Objects.equals(expected, got);
        if (!equal) throw new AssertionError(what + ": expected " + show(expected) + ", got " + show(got));
    }

    private static String show(Object o) {
        return o instanceof byte[] b ? b.length > 64 ? b.length + " bytes" : Arrays.toString(b) : String.valueOf(o);
    }
}
