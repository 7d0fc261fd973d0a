package clients;

import static clients.Harness.check;
import static clients.Harness.eventually;
import static clients.Harness.same;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.quota.ClientQuotaAlteration;
import org.apache.kafka.common.quota.ClientQuotaEntity;
import org.apache.kafka.common.quota.ClientQuotaFilter;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.zookeeper.KeeperException;
import org.apache.zookeeper.ZooKeeper;
import org.apache.zookeeper.data.Stat;

/**
 * Two Kafka brokers in ZooKeeper mode on the server under test, from start to stop; each step goes on from the one before.
 * System properties: work is a folder for data and logs, ports the two brokers' ports.
 */
public final class KafkaSuite {
    private static final String TOPIC = "t";
    private static final String CHROOT = "/kafka";

    private final Harness h;
    private final Path work = Path.of(System.getProperty("work"));
    private final List<Integer> ports = List.of(System.getProperty("ports").split(" ")).stream().map(Integer::parseInt).toList();
    private final Process[] brokers = new Process[2];
    private final Set<String> sent = Collections.synchronizedSet(new TreeSet<>());
    private Admin admin;
    private ZooKeeper zk;

    private KafkaSuite(Harness h) {
        this.h = h;
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            for (var b : brokers) if (b != null) b.destroyForcibly();
        }));
    }

    public static void main(String[] args) throws Exception {
        var h = new Harness("kafka", args);
        var s = new KafkaSuite(h);
        h.must("brokers-start", s::brokersStart)
                .must("controller-is-elected", s::controllerElected)
                .must("topic-is-created", s::topicCreated)
                .test("messages-pass", s::messagesPass)
                .disturb("server-killed-while-messages-pass", s::serverKilled)
                .must("controller-killed", s::controllerKilled)
                .test("messages-pass-on-one-broker", s::messagesPass)
                .disturb("topic-created-across-a-kill", s::topicCreatedAcrossKill)
                .must("broker-comes-back", s::brokerComesBack)
                .test("config-is-altered", s::configAltered)
                .test("partitions-are-added", s::partitionsAdded)
                .test("partition-is-reassigned", s::partitionReassigned)
                .test("preferred-leaders-are-elected", s::preferredLeaders)
                .test("acls-users-quotas", s::aclsUsersQuotas)
                .test("all-messages-are-there", s::allMessagesThere)
                .test("topic-is-deleted", s::topicDeleted)
                .test("broker-stops-in-order", s::brokerStops)
                .run();
    }

    // ---- helpers

    private void start(int id) throws IOException {
        Path dir = work.resolve("broker-" + id);
        Files.createDirectories(dir);
        var p = new Properties();
        p.put("broker.id", "" + id);
        p.put("zookeeper.connect", h.servers + CHROOT);
        p.put("zookeeper.session.timeout.ms", "" + 6000 * Harness.SLOW);
        p.put("zookeeper.connection.timeout.ms", "30000");
        p.put("log.dirs", dir.resolve("data").toString());
        p.put("listeners", "PLAINTEXT://127.0.0.1:" + ports.get(id));
        p.put("authorizer.class.name", "kafka.security.authorizer.AclAuthorizer");
        p.put("super.users", "User:ANONYMOUS");
        p.put("offsets.topic.replication.factor", "2");
        p.put("offsets.topic.num.partitions", "2");
        p.put("group.initial.rebalance.delay.ms", "0");
        p.put("auto.create.topics.enable", "false");
        p.put("log.segment.delete.delay.ms", "1000");
        p.put("log.cleaner.dedupe.buffer.size", "2097152");
        p.put("num.io.threads", "2");
        p.put("background.threads", "2");
        Path config = dir.resolve("server.properties");
        try (var w = Files.newBufferedWriter(config)) {
            p.store(w, null);
        }
        brokers[id] = new ProcessBuilder(System.getProperty("java.home") + "/bin/java", "-Xmx256m", "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError", "-Dlog4j.configuration=file:" + work.resolve("broker.properties"),
                "-cp", System.getProperty("java.class.path"), "kafka.Kafka", config.toString())
                .redirectErrorStream(true)
                .redirectOutput(ProcessBuilder.Redirect.appendTo(dir.resolve("log").toFile()))
                .start();
        Files.writeString(dir.resolve("pid"), brokers[id].pid() + "\n");
    }

    private String bootstrap() {
        return ports.stream().map(p -> "127.0.0.1:" + p).collect(Collectors.joining(","));
    }

    private String text(String path, Stat stat) throws Exception {
        byte[] data = zk(() -> zk.getData(CHROOT + path, false, stat));
        return new String(data, StandardCharsets.UTF_8);
    }

    private Set<String> children(String path) throws Exception {
        return new TreeSet<>(zk(() -> {
            try {
                return zk.getChildren(CHROOT + path, false);
            } catch (KeeperException.NoNodeException e) {
                return List.of();
            }
        }));
    }

    private interface Read<T> {
        T run() throws Exception;
    }

    /** A read of the suite's own handle, repeated when the connection was just lost. */
    private <T> T zk(Read<T> read) throws Exception {
        for (int i = 0; ; i++) {
            try {
                return read.run();
            } catch (KeeperException.ConnectionLossException e) {
                if (i == 20) throw e;
            }
        }
    }

    /** The broker that /controller names, or −1. */
    private int controller() throws Exception {
        try {
            var m = Pattern.compile("\"brokerid\":(\\d+)").matcher(text("/controller", null));
            return m.find() ? Integer.parseInt(m.group(1)) : -1;
        } catch (KeeperException.NoNodeException e) {
            return -1;
        }
    }

    private static <T> T get(KafkaFuture<T> f) throws Exception {
        return f.get(30L * Harness.SLOW, TimeUnit.SECONDS);
    }

    private List<TopicPartitionInfo> partitions(String topic) throws Exception {
        TopicDescription d = get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
        return d.partitions();
    }

    private void inSync(String topic, int partitions, int replicas) throws Exception {
        eventually(topic + ": " + partitions + " partitions with " + replicas + " replicas in sync", 40, () -> {
            try {
                var all = partitions(topic);
                return all.size() == partitions && all.stream().allMatch(p -> p.leader() != null && p.isr().size() == replicas);
            } catch (java.util.concurrent.ExecutionException e) {
                return false; // not known to this broker yet
            }
        });
    }

    private KafkaProducer<String, String> producer() {
        var p = new Properties();
        p.put("bootstrap.servers", bootstrap());
        p.put("acks", "all");
        p.put("delivery.timeout.ms", "" + 50_000 * Harness.SLOW);
        p.put("request.timeout.ms", "5000");
        p.put("linger.ms", "5");
        p.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        p.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        var producer = new KafkaProducer<String, String>(p);
        h.closing(() -> producer.close(Duration.ofSeconds(1)));
        return producer;
    }

    private void send(KafkaProducer<String, String> producer, int count) throws Exception {
        var answers = new ArrayList<Future<RecordMetadata>>();
        for (int i = 0; i < count; i++) {
            String message = String.format("m-%06d", sent.size());
            sent.add(message);
            answers.add(producer.send(new ProducerRecord<>(TOPIC, message, message)));
        }
        for (var a : answers) a.get(55L * Harness.SLOW, TimeUnit.SECONDS);
    }

    /** Reads from the beginning by a new group until each message that was sent has come, each once. */
    private void receive() throws Exception {
        var p = new Properties();
        p.put("bootstrap.servers", bootstrap());
        p.put("group.id", "g-" + System.nanoTime());
        p.put("auto.offset.reset", "earliest");
        p.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        p.put("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        var got = new ArrayList<String>();
        try (var consumer = new KafkaConsumer<String, String>(p)) {
            consumer.subscribe(List.of(TOPIC));
            eventually("all messages are received", 25, () -> {
                for (var r : consumer.poll(Duration.ofMillis(200))) got.add(r.value());
                return got.size() >= sent.size();
            });
            consumer.commitSync(Duration.ofSeconds(10));
        }
        same(sent.size(), got.size(), "messages received");
        same(new TreeSet<>(sent), new TreeSet<>(got));
    }

    // ---- the steps

    private void brokersStart() throws Exception {
        var connected = new CountDownLatch(1);
        zk = new ZooKeeper(h.servers, 20_000, e -> connected.countDown());
        check(connected.await(15, TimeUnit.SECONDS), "connected");
        // One after the other: the first one lays out the nodes.
        start(0);
        start(1);
        eventually("both brokers are registered", 50, () -> {
            for (var b : brokers) check(b.isAlive(), "a broker has ended");
            return children("/brokers/ids").equals(Set.of("0", "1"));
        });
        var p = new Properties();
        p.put("bootstrap.servers", bootstrap());
        admin = Admin.create(p);
        eventually("both brokers answer", 40, () -> get(admin.describeCluster().nodes()).size() == 2);
    }

    private void controllerElected() throws Exception {
        eventually("a controller", () -> controller() >= 0);
        same(controller(), get(admin.describeCluster().controller()).id());
        var stat = new Stat();
        text("/brokers/ids/0", stat);
        check(stat.getEphemeralOwner() != 0, "registrations are ephemeral");
        same(1, stat.getVersion(), "the registration is a create and a setData in one multi");
    }

    private void topicCreated() throws Exception {
        get(admin.createTopics(List.of(new NewTopic(TOPIC, 3, (short) 2))).all());
        inSync(TOPIC, 3, 2);
        same(Set.of("0", "1", "2"), children("/brokers/topics/" + TOPIC + "/partitions"));
    }

    private void messagesPass() throws Exception {
        send(producer(), 500);
        receive();
    }

    private void serverKilled() throws Exception {
        var before = new TreeMap<String, Long>();
        for (String path : List.of("/brokers/ids/0", "/brokers/ids/1", "/controller")) {
            var stat = new Stat();
            text(path, stat);
            before.put(path, stat.getCzxid());
        }
        var producer = producer();
        send(producer, 200);
        h.control("kill");
        send(producer, 200);
        h.control("start");
        send(producer, 200);
        receive();
        // The sessions lived on, and nothing was registered anew.
        for (var e : before.entrySet()) {
            var stat = new Stat();
            text(e.getKey(), stat);
            same(e.getValue(), stat.getCzxid(), "czxid of " + e.getKey());
        }
        inSync(TOPIC, 3, 2);
    }

    private int dead = -1;

    private void controllerKilled() throws Exception {
        dead = controller();
        int other = 1 - dead;
        int epoch = Integer.parseInt(text("/controller_epoch", null));
        brokers[dead].destroyForcibly().waitFor();
        eventually("the other broker is controller", 40, () -> controller() == other);
        eventually("the epoch rises", () -> Integer.parseInt(text("/controller_epoch", null)) > epoch);
        eventually("the dead one's registration is gone", () -> children("/brokers/ids").equals(Set.of("" + other)));
        eventually("all partitions are led by the other", 30, () -> partitions(TOPIC).stream().allMatch(p -> p.leader() != null && p.leader().id() == other));
    }

    /** The new controller's watches must work when the server was killed meanwhile. */
    private void topicCreatedAcrossKill() throws Exception {
        h.control("restart");
        get(admin.createTopics(List.of(new NewTopic("u", 2, (short) 1))).all());
        inSync("u", 2, 1);
    }

    private void brokerComesBack() throws Exception {
        start(dead);
        eventually("both brokers are registered", 40, () -> children("/brokers/ids").equals(Set.of("0", "1")));
        inSync(TOPIC, 3, 2);
    }

    private void configAltered() throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, TOPIC);
        var ops = List.of(new AlterConfigOp(new ConfigEntry("retention.ms", "123456789"), AlterConfigOp.OpType.SET));
        get(admin.incrementalAlterConfigs(Map.<ConfigResource, Collection<AlterConfigOp>>of(resource, ops)).all());
        eventually("the value is seen", () -> get(admin.describeConfigs(List.of(resource)).all()).get(resource).get("retention.ms").value().equals("123456789"));
        check(text("/config/topics/" + TOPIC, null).contains("\"retention.ms\":\"123456789\""), "the value is stored");
        // Brokers take up their own dynamic configuration from a watched change notification.
        var broker = new ConfigResource(ConfigResource.Type.BROKER, "0");
        var set = List.of(new AlterConfigOp(new ConfigEntry("log.retention.ms", "987654321"), AlterConfigOp.OpType.SET));
        get(admin.incrementalAlterConfigs(Map.<ConfigResource, Collection<AlterConfigOp>>of(broker, set)).all());
        eventually("the broker took it up", () -> {
            var entry = get(admin.describeConfigs(List.of(broker)).all()).get(broker).get("log.retention.ms");
            return entry.value() != null && entry.value().equals("987654321");
        });
    }

    private void partitionsAdded() throws Exception {
        get(admin.createPartitions(Map.of(TOPIC, NewPartitions.increaseTo(6))).all());
        inSync(TOPIC, 6, 2);
        send(producer(), 200);
    }

    private void partitionReassigned() throws Exception {
        var p = new TopicPartition("u", 0);
        int from = partitions("u").get(0).leader().id();
        get(admin.alterPartitionReassignments(Map.of(p, Optional.of(new NewPartitionReassignment(List.of(1 - from))))).all());
        eventually("moved", 25, () -> get(admin.listPartitionReassignments().reassignments()).isEmpty()
                && partitions("u").get(0).leader() != null && partitions("u").get(0).leader().id() == 1 - from);
        check(text("/brokers/topics/u", null).contains("\"0\":[" + (1 - from) + "]"), "the new assignment is stored");
    }

    private void preferredLeaders() throws Exception {
        // All leaders are on the broker that never died; the election spreads them again.
        var not = partitions(TOPIC).stream().filter(p -> p.leader().id() != p.replicas().get(0).id())
                .map(p -> new TopicPartition(TOPIC, p.partition())).collect(Collectors.toSet());
        if (!not.isEmpty()) {
            // What the broker that was asked has not heard of yet needs no election any more.
            for (var failed : get(admin.electLeaders(ElectionType.PREFERRED, not).partitions()).values()) {
                if (failed.isPresent() && !(failed.get() instanceof ElectionNotNeededException)) throw new IllegalStateException(failed.get());
            }
        }
        eventually("preferred leaders lead", 25, () -> partitions(TOPIC).stream().allMatch(p -> p.leader() != null && p.leader().id() == p.replicas().get(0).id()));
    }

    private void aclsUsersQuotas() throws Exception {
        var acl = new AclBinding(new ResourcePattern(ResourceType.TOPIC, TOPIC, PatternType.LITERAL),
                new AccessControlEntry("User:alice", "*", AclOperation.WRITE, AclPermissionType.ALLOW));
        get(admin.createAcls(List.of(acl)).all());
        eventually("the ACL is seen", () -> List.copyOf(get(admin.describeAcls(AclBindingFilter.ANY).values())).equals(List.of(acl)));
        check(text("/kafka-acl/Topic/" + TOPIC, null).contains("User:alice"), "the ACL is stored");
        get(admin.alterUserScramCredentials(List.of(new UserScramCredentialUpsertion("alice",
                new ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096), "secret"))).all());
        eventually("the user is seen", () -> get(admin.describeUserScramCredentials().users()).contains("alice"));
        var entity = new ClientQuotaEntity(Map.of(ClientQuotaEntity.USER, "alice"));
        get(admin.alterClientQuotas(List.of(new ClientQuotaAlteration(entity, List.of(new ClientQuotaAlteration.Op("producer_byte_rate", 1e6))))).all());
        eventually("the quota is seen", () -> get(admin.describeClientQuotas(ClientQuotaFilter.all()).entities())
                .getOrDefault(entity, Map.of()).getOrDefault("producer_byte_rate", 0.0) == 1e6);
        get(admin.deleteAcls(List.of(acl.toFilter())).all());
        eventually("the ACL is gone", () -> get(admin.describeAcls(AclBindingFilter.ANY).values()).isEmpty());
    }

    private void allMessagesThere() throws Exception {
        receive();
    }

    private void topicDeleted() throws Exception {
        get(admin.deleteTopics(List.of(TOPIC)).all());
        eventually("the topic is gone", 25, () -> !children("/brokers/topics").contains(TOPIC) && children("/admin/delete_topics").isEmpty()
                && !children("/config/topics").contains(TOPIC));
        eventually("nobody knows it", () -> {
            try {
                partitions(TOPIC);
                return false;
            } catch (java.util.concurrent.ExecutionException e) {
                if (e.getCause() instanceof UnknownTopicOrPartitionException) return true;
                throw e;
            }
        });
        same(Set.of("u"), get(admin.listTopics().names()).stream().filter(n -> !n.startsWith("__")).collect(Collectors.toSet()));
    }

    private void brokerStops() throws Exception {
        int id = 1 - controller();
        brokers[id].destroy();
        check(brokers[id].waitFor(25L * Harness.SLOW, TimeUnit.SECONDS), "SIGTERM ends it");
        same(Set.of("" + (1 - id)), children("/brokers/ids"), "a closed session's registration is gone at once");
    }
}
