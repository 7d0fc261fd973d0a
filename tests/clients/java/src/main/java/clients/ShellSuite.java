package clients;

import static clients.Harness.check;
import static clients.Harness.eventually;
import static clients.Harness.same;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.Writer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/**
 * Kafka's zookeeper-shell.sh (its main class, on Kafka's own class path, which holds an older client than the other
 * suites use), once per command and with commands on its standard input. KAFKA_LIB is the folder of Kafka's jars.
 */
public final class ShellSuite {
    private static final String MAIN = "org.apache.zookeeper.ZooKeeperMainWithTlsSupportForKafka";

    private final Harness h;
    private final String run = Long.toString(System.nanoTime(), 36);
    private final Path quiet;
    private Shell shell;

    private ShellSuite(Harness h) throws IOException {
        this.h = h;
        quiet = Files.createTempFile("zookeeper-shell", ".properties");
        Files.writeString(quiet, "log4j.rootLogger=OFF\n");
        quiet.toFile().deleteOnExit();
    }

    public static void main(String[] args) throws IOException {
        var h = new Harness("zookeeper-shell", args);
        var s = new ShellSuite(h);
        h.test("one-command", s::oneCommand)
                .test("exit-codes", s::exitCodes)
                .test("create-and-get", s::createAndGet)
                .test("set-and-versions", s::setAndVersions)
                .test("list", s::list)
                .test("stat", s::stat)
                .test("delete", s::delete)
                .test("acl", s::acl)
                .test("auth", s::auth)
                .test("quota", s::quota)
                .test("ephemerals-and-numbers", s::ephemeralsAndNumbers)
                .test("watches", s::watches)
                .test("sync-version-config", s::syncVersionConfig)
                .test("connect-and-close", s::connectAndClose)
                .disturb("kill-and-go-on", s::killAndGoOn)
                .run();
    }

    // ---- the shell

    private ProcessBuilder command(String... words) {
        var all = new ArrayList<>(List.of(System.getProperty("java.home") + "/bin/java", "-Xmx128m", "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1", "-Dlog4j.configuration=file:" + quiet, "-cp",
                Objects.requireNonNull(System.getenv("KAFKA_LIB"), "KAFKA_LIB is not set") + "/*", MAIN, "-server", h.servers));
        all.addAll(List.of(words));
        return new ProcessBuilder(all).redirectErrorStream(true);
    }

    private record Outcome(int status, List<String> lines) {}

    private Outcome once(String... words) throws Exception {
        var p = command(words).start();
        h.closing(p::destroyForcibly);
        p.getOutputStream().close();
        var lines = new String(p.getInputStream().readAllBytes(), StandardCharsets.UTF_8).lines().filter(l -> !l.isEmpty()).toList();
        return new Outcome(p.waitFor(), lines.stream().filter(l -> !Shell.noise(l)).toList());
    }

    /** A shell that is fed one command after the other. */
    private static final class Shell implements AutoCloseable {
        final Process process;
        final List<String> events = new CopyOnWriteArrayList<>();
        private final Writer in;
        private final LinkedBlockingQueue<String> out = new LinkedBlockingQueue<>();
        private int marks;

        Shell(Process process) {
            this.process = process;
            in = process.outputWriter(StandardCharsets.UTF_8);
            var t = new Thread(() -> {
                try (var r = new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8))) {
                    for (String l; (l = r.readLine()) != null; ) {
                        if (l.startsWith("WatchedEvent ")) events.add(l);
                        else if (!l.isEmpty() && !noise(l)) out.add(l);
                    }
                } catch (IOException e) {
                    // The shell has ended.
                }
            }, "shell");
            t.setDaemon(true);
            t.start();
        }

        static boolean noise(String line) {
            return line.equals("WATCHER::") || line.startsWith("WatchedEvent ") || line.startsWith("Connecting to ")
                    || line.equals("Welcome to ZooKeeper!") || line.equals("JLine support is disabled");
        }

        /** What the shell prints for this command, events apart: all that comes before the answer to a marking command. */
        List<String> run(String command) throws Exception {
            String mark = "/no-such-node-" + marks++;
            in.write(command + "\nget " + mark + "\n");
            in.flush();
            var lines = new ArrayList<String>();
            while (true) {
                String l = out.poll(15L * Harness.SLOW, TimeUnit.SECONDS);
                check(l != null, command + " printed " + lines + " and then nothing");
                if (l.equals("Node does not exist: " + mark)) return lines;
                lines.add(l);
            }
        }

        void says(String command, String... expected) throws Exception {
            same(List.of(expected), run(command), command);
        }

        void event(String wanted) throws Exception {
            eventually(wanted + " among " + events, () -> events.stream().anyMatch(e -> e.endsWith(wanted)));
        }

        @Override
        public void close() {
            process.destroyForcibly();
        }
    }

    /** One shell serves all tests that only feed it. */
    private Shell shell() throws IOException {
        if (shell == null || !shell.process.isAlive()) shell = new Shell(command().start());
        return shell;
    }

    private Shell fresh() throws IOException {
        return h.closing(new Shell(command().start()));
    }

    private String base(String name) throws Exception {
        String p = "/shell-" + run + "-" + name;
        shell().says("create " + p, "Created " + p);
        return p;
    }

    private static void matches(String pattern, List<String> lines) {
        check(Pattern.matches(pattern, String.join("\n", lines)), "expected " + pattern + ", got " + lines);
    }

    private static String stat(String version, String aversion, String owner, int length, int children) {
        return "cZxid = 0x\\p{XDigit}+\nctime = .*\nmZxid = 0x\\p{XDigit}+\nmtime = .*\npZxid = 0x\\p{XDigit}+\ncversion = \\d+\n"
                + "dataVersion = " + version + "\naclVersion = " + aversion + "\nephemeralOwner = " + owner
                + "\ndataLength = " + length + "\nnumChildren = " + children;
    }

    // ---- tests

    private void oneCommand() throws Exception {
        String p = "/shell-" + run + "-once";
        same(new Outcome(0, List.of("Created " + p)), once("create", p, "some data"));
        same(new Outcome(0, List.of("some data")), once("get", p));
        var ls = once("ls", "/");
        same(0, ls.status);
        check(ls.lines.size() == 1 && ls.lines.get(0).contains(p.substring(1)) && ls.lines.get(0).contains("zookeeper"), "ls: " + ls);
    }

    private void exitCodes() throws Exception {
        same(new Outcome(1, List.of("Node does not exist: /nothing-here")), once("get", "/nothing-here"));
        same(127, once("nonsense").status);
    }

    private void createAndGet() throws Exception {
        String p = base("create");
        var s = shell();
        s.says("create " + p + "/a data", "Created " + p + "/a");
        s.says("create " + p + "/a data", "Node already exists: " + p + "/a");
        s.says("create " + p + "/b/c data", "Node does not exist: " + p + "/b/c");
        s.says("create -e " + p + "/e \"two words\"", "Created " + p + "/e");
        s.says("create " + p + "/e/x", "Ephemerals cannot have children: " + p + "/e/x");
        s.says("create -s " + p + "/s- x", "Created " + p + "/s-0000000002");
        s.says("create -s -e " + p + "/s- x", "Created " + p + "/s-0000000003");
        s.says("create -c " + p + "/c x", "Created " + p + "/c");
        s.says("create -t 600000 " + p + "/t x", "Created " + p + "/t");
        s.says("create -s -t 600000 " + p + "/t- x", "Created " + p + "/t-0000000006");
        s.says("get " + p + "/a", "data");
        s.says("get " + p + "/e", "two words");
        s.says("create " + p + "/null", "Created " + p + "/null");
        s.says("get " + p + "/null", "null");
        var lines = s.run("get -s " + p + "/a");
        same("data", lines.remove(0));
        matches(stat("0", "0", "0x0", 4, 0), lines);
        lines = s.run("get -s " + p + "/t");
        same("x", lines.remove(0));
        matches(stat("0", "0", "0x0", 1, 0), lines);
        lines = s.run("get -s " + p + "/e");
        same("two words", lines.remove(0));
        matches(stat("0", "0", "0x[1-9a-f]\\p{XDigit}+", 9, 0), lines);
    }

    private void setAndVersions() throws Exception {
        String p = base("set");
        var s = shell();
        s.says("set " + p + " one");
        s.says("get " + p, "one");
        matches(stat("2", "0", "0x0", 5, 0), s.run("set -s " + p + " three"));
        s.says("set -v 1 " + p + " x", "version No is not valid : " + p);
        s.says("set -v 2 " + p + " four");
        s.says("get " + p, "four");
        s.says("set " + p + "/missing x", "Node does not exist: " + p + "/missing");
    }

    private void list() throws Exception {
        String p = base("list");
        var s = shell();
        for (String n : List.of("/b", "/a", "/a/x", "/a/x/y", "/c")) s.says("create " + p + n, "Created " + p + n);
        s.says("ls " + p, "[a, b, c]");
        s.says("ls -R " + p, p, p + "/a", p + "/b", p + "/c", p + "/a/x", p + "/a/x/y");
        var lines = s.run("ls -s " + p);
        same("[a, b, c]", lines.remove(0));
        matches(stat("0", "0", "0x0", 0, 3), lines);
        s.says("ls " + p + "/missing", "Node does not exist: " + p + "/missing");
        s.says("ls " + p + "/a/x/y", "[]");
    }

    private void stat() throws Exception {
        String p = base("stat");
        var s = shell();
        s.says("create " + p + "/a", "Created " + p + "/a");
        s.says("delete " + p + "/a");
        var lines = s.run("stat " + p);
        matches(stat("0", "0", "0x0", 0, 0), lines);
        check(lines.contains("cversion = 2"), "a create and a delete are two changes: " + lines);
        s.says("stat " + p + "/a", "Node does not exist: " + p + "/a");
    }

    private void delete() throws Exception {
        String p = base("delete");
        var s = shell();
        s.run("create " + p + "/a");
        s.says("delete " + p, "Node not empty: " + p);
        s.says("delete -v 3 " + p + "/a", "version No is not valid : " + p + "/a");
        s.says("delete -v 0 " + p + "/a");
        s.says("delete " + p + "/a", "Node does not exist: " + p + "/a");
        for (int i = 0; i < 30; i++) s.run("create " + p + "/n" + i);
        s.run("create " + p + "/n0/deep");
        s.says("deleteall " + p + " -b 7");
        s.says("stat " + p, "Node does not exist: " + p);
        s.says("deleteall " + p, "Node does not exist: " + p);
    }

    private void acl() throws Exception {
        String p = base("acl");
        var s = shell();
        s.says("getAcl " + p, "'world,'anyone", ": cdrwa");
        s.run("create " + p + "/a");
        s.says("setAcl -R " + p + " world:anyone:cdra,ip:127.0.0.1:cdrwa");
        for (String n : List.of(p, p + "/a")) s.says("getAcl " + n, "'world,'anyone", ": cdra", "'ip,'127.0.0.1", ": cdrwa");
        var lines = s.run("getAcl -s " + p);
        matches(stat("0", "1", "0x0", 0, 1), lines.subList(4, lines.size()));
        s.says("setAcl -v 0 " + p + " world:anyone:r", "version No is not valid : " + p);
        s.says("setAcl " + p + " world:anyone:r");
        s.says("set " + p + " x", "Insufficient permission : " + p);
        s.says("create " + p + "/b", "Insufficient permission : " + p + "/b");
        s.says("setAcl " + p + " nonsense:x:r", "Acl is not valid : " + p);
    }

    private void auth() throws Exception {
        String p = base("auth");
        var s = fresh();
        s.says("create " + p + "/a x digest:alice:jyWZvj+qvEmOlBUD5hEsKLRGgZw=:cdrwa", "Created " + p + "/a");
        s.says("get " + p + "/a", "Insufficient permission : " + p + "/a");
        s.says("whoami", "Auth scheme: User", "ip: 127.0.0.1");
        s.says("create " + p + "/b x auth::cdrwa", "KeeperErrorCode = InvalidACL for " + p + "/b", "Acl is not valid : " + p + "/b");
        s.says("addauth digest alice:wrong");
        s.says("get " + p + "/a", "Insufficient permission : " + p + "/a");
        s.says("create " + p + "/b x auth::cdrwa", "Created " + p + "/b");
        matches("'digest,'alice:[A-Za-z0-9+/]{27}=\n: cdrwa", s.run("getAcl " + p + "/b"));
        s.says("addauth digest super:secret");
        s.says("get " + p + "/a", "x");
        check(s.run("whoami").containsAll(List.of("ip: 127.0.0.1", "digest: alice", "digest: super")), "whoami names all");
        shell().says("get " + p + "/b", "Insufficient permission : " + p + "/b");
    }

    private void quota() throws Exception {
        String p = base("quota");
        var s = shell();
        s.says("listquota " + p, "absolute path is /zookeeper/quota" + p + "/zookeeper_limits", "quota for " + p + " does not exist.");
        s.says("setquota -n 2 " + p);
        s.says("setquota -N 3 " + p);
        s.run("create " + p + "/a 12345");
        s.says("listquota " + p, "absolute path is /zookeeper/quota" + p + "/zookeeper_limits",
                "Output quota for " + p + " count=2,bytes=-1=;byteHardLimit=-1;countHardLimit=3", "Output stat for " + p + " count=2,bytes=5");
        // The soft limit lets pass, the hard one does not.
        s.says("create " + p + "/b", "Created " + p + "/b");
        s.says("create " + p + "/c", "Quota has exceeded : " + p + "/c");
        s.says("delquota -N " + p);
        s.says("create " + p + "/c", "Created " + p + "/c");
        s.run("setquota -B 10 " + p); // with a warning of the other limit
        s.says("set " + p + "/c 123456", "Quota has exceeded : " + p + "/c");
        s.says("setquota -n 5 " + p + "/a", p + "/a has a parent " + p + " which has a quota");
        s.says("delquota " + p);
        s.says("listquota " + p, "absolute path is /zookeeper/quota" + p + "/zookeeper_limits", "quota for " + p + " does not exist.");
        s.says("set " + p + "/c 123456");
    }

    private void ephemeralsAndNumbers() throws Exception {
        String p = base("ephemerals");
        var s = fresh();
        s.says("getEphemerals", "[]");
        s.run("create -e " + p + "/e");
        s.run("create " + p + "/a");
        s.run("create -e " + p + "/a/e");
        s.run("create " + p + "/a/b");
        var all = s.run("getEphemerals");
        check(all.equals(List.of("[" + p + "/e, " + p + "/a/e]")) || all.equals(List.of("[" + p + "/a/e, " + p + "/e]")), "getEphemerals: " + all);
        s.says("getEphemerals " + p + "/a", "[" + p + "/a/e]");
        s.says("getAllChildrenNumber " + p, "4");
        shell().says("getEphemerals " + p, "[]");
    }

    private void watches() throws Exception {
        String p = base("watches");
        var s = fresh();
        s.says("addWatch -m PERSISTENT " + p);
        s.says("create " + p + "/a", "Created " + p + "/a");
        s.event("type:NodeChildrenChanged path:" + p);
        s.says("set " + p + " x");
        s.event("type:NodeDataChanged path:" + p);
        s.says("removewatches " + p);
        s.event("type:PersistentWatchRemoved path:" + p);
        s.says("addWatch -m PERSISTENT_RECURSIVE " + p);
        s.says("create " + p + "/a/b", "Created " + p + "/a/b");
        s.event("type:NodeCreated path:" + p + "/a/b");
        s.says("removewatches " + p);
        s.says("removewatches " + p, "KeeperErrorCode = No such watcher for " + p);
    }

    private void syncVersionConfig() throws Exception {
        String p = base("sync");
        var s = shell();
        s.says("sync " + p, "Sync is OK");
        matches("ZooKeeper CLI version: 3\\.8\\..*", s.run("version"));
        s.says("config");
        // One-shot watches by option.
        s.run("ls -w " + p);
        s.run("get -w " + p);
        s.run("stat -w " + p + "/later");
        s.run("create " + p + "/later");
        s.event("type:NodeCreated path:" + p + "/later");
        s.event("type:NodeChildrenChanged path:" + p);
        s.run("set " + p + " x");
        s.event("type:NodeDataChanged path:" + p);
    }

    private void connectAndClose() throws Exception {
        String p = base("connect");
        var s = fresh();
        s.says("create -e " + p + "/e", "Created " + p + "/e");
        s.run("connect " + h.servers + p);
        // Another session now, below another root; the ephemeral of the first is gone.
        s.says("ls /", "[]");
        s.says("create /inside", "Created /inside");
        shell().says("ls " + p, "[inside]");
        var w = s.process.outputWriter(StandardCharsets.UTF_8);
        w.write("quit\n");
        w.flush();
        check(s.process.waitFor(15L * Harness.SLOW, TimeUnit.SECONDS), "quit ends the shell");
        same(1, s.process.exitValue() & 1, "the marking commands failed, which the exit status tells");
    }

    private void killAndGoOn() throws Exception {
        String p = base("kill");
        var s = fresh();
        s.says("create -e " + p + "/e x", "Created " + p + "/e");
        s.says("addWatch -m PERSISTENT " + p);
        int connected = count(s, "state:SyncConnected type:None path:null");
        h.control("restart");
        eventually("connected again, " + s.events, 20, () -> count(s, "state:SyncConnected type:None path:null") > connected);
        s.says("get " + p + "/e", "x");
        s.says("create " + p + "/f", "Created " + p + "/f");
        s.event("type:NodeChildrenChanged path:" + p);
    }

    private static int count(Shell s, String event) {
        return (int) s.events.stream().filter(e -> e.endsWith(event)).count();
    }
}
