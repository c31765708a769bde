import java.io.File;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.TopicPartition;

/** Kafka's own command line classes, each started as its own process. */
final class ToolChecks {
    private static final String TOOLS = "org.apache.kafka.tools.";

    private final Checks checks;
    private final Cluster cluster;

    ToolChecks(Checks checks, Cluster cluster) {
        this.checks = checks;
        this.cluster = cluster;
    }

    void run() {
        checks.check("tool_topics_creates_describes_and_lists", this::topics);
        checks.check("tool_configs_alters_and_describes", this::configs);
        checks.check("tool_console_producer_and_consumer", this::console);
        checks.check("tool_producer_performance", this::producerPerformance);
        checks.check("tool_api_versions", this::apiVersions);
        checks.check("tool_console_consumer_in_a_group", this::consoleGroup);
        checks.check("tool_consumer_groups_describes", this::groupDescriptions);
        checks.check("tool_consumer_groups_resets_to_an_end", () -> groupResets("ends", List.of(
                List.of("--to-earliest", "0"), List.of("--to-latest", "100"), List.of("--to-current", "100"))));
        checks.check("tool_consumer_groups_resets_to_an_offset", () -> groupResets("offset", List.of(
                List.of("--to-offset 40", "40"), List.of("--shift-by -15", "25"), List.of("--shift-by 1000", "100"))));
        checks.check("tool_consumer_groups_resets_to_a_time", () -> groupResets("time", List.of(
                List.of("--to-datetime 2000-01-01T00:00:00.000", "0"), List.of("--by-duration P0DT0H0M0S", "100"))));
        checks.check("tool_consumer_groups_resets_from_a_file", this::groupResetFromFile);
        checks.check("tool_consumer_groups_deletes", this::groupDeletions);
    }

    private void topics() throws Exception {
        String topic = cluster.name("tool-topics");
        topicCommand("--create", "--topic", topic, "--partitions", "3", "--config", "retention.ms=5000000");
        String described = topicCommand("--describe", "--topic", topic);
        Checks.that(described.contains("PartitionCount: 3"), described);
        Checks.that(described.contains("retention.ms=5000000"), described);
        Checks.that(topicCommand("--list").contains(topic), "topic is not listed");
    }

    private String topicCommand(String... arguments) throws Exception {
        List<String> all = new ArrayList<>(List.of("--bootstrap-server", cluster.bootstrap));
        all.addAll(List.of(arguments));
        return tool("", TOOLS + "TopicCommand", all.toArray(String[]::new));
    }

    private void configs() throws Exception {
        String topic = cluster.topic("tool-configs", 1);
        tool("", "kafka.admin.ConfigCommand", "--bootstrap-server", cluster.bootstrap, "--alter",
                "--entity-type", "topics", "--entity-name", topic, "--add-config", "max.message.bytes=54321");
        String described = tool("", "kafka.admin.ConfigCommand", "--bootstrap-server", cluster.bootstrap, "--describe",
                "--entity-type", "topics", "--entity-name", topic);
        Checks.that(described.contains("max.message.bytes=54321"), described);
    }

    private void console() throws Exception {
        String topic = cluster.topic("tool-console", 2);
        StringBuilder lines = new StringBuilder();
        for (int i = 0; i < 200; i++) {
            // One key, so that all lines are in one partition. Which one is the client's hash to know.
            lines.append("b:line ").append(i).append('\n');
        }
        tool(lines.toString(), TOOLS + "ConsoleProducer", "--bootstrap-server", cluster.bootstrap, "--topic", topic,
                "--property", "parse.key=true", "--property", "key.separator=:");
        int partition = 0;
        while (cluster.admin
                        .listOffsets(Map.of(new TopicPartition(topic, partition), OffsetSpec.latest()))
                        .partitionResult(new TopicPartition(topic, partition))
                        .get()
                        .offset()
                == 0) {
            partition++;
        }
        String read = tool("", TOOLS + "consumer.ConsoleConsumer", "--bootstrap-server", cluster.bootstrap,
                "--topic", topic, "--partition", "" + partition, "--offset", "earliest", "--max-messages", "200",
                "--timeout-ms", "15000");
        Checks.equal(lines.toString().replace("b:", ""), read, "lines");
    }

    private void producerPerformance() throws Exception {
        String topic = cluster.topic("tool-perf", 3);
        String report = tool("", TOOLS + "ProducerPerformance", "--topic", topic, "--num-records", "20000",
                "--record-size", "200", "--throughput", "-1", "--producer-props",
                "bootstrap.servers=" + cluster.bootstrap, "acks=all");
        Checks.that(report.contains("20000 records sent"), report);
    }

    private void apiVersions() throws Exception {
        String report = tool("", TOOLS + "BrokerApiVersionsCommand", "--bootstrap-server", cluster.bootstrap);
        Checks.that(report.contains("Produce(0)") && report.contains("Fetch(1)"), report);
    }

    /** A topic of one partition with 100 records, and a group named like it that has committed offset 30. */
    private String group(String what) throws Exception {
        String topic = cluster.topic("tool-group-" + what, 1);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            Cluster.send(producer, Cluster.records(topic, 1, 100, 20));
        }
        cluster.admin
                .alterConsumerGroupOffsets(topic, Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(30)))
                .all()
                .get();
        return topic;
    }

    private String groupCommand(String arguments) throws Exception {
        List<String> all = new ArrayList<>(List.of("--bootstrap-server", cluster.bootstrap));
        all.addAll(List.of(arguments.split(" ")));
        return tool("", TOOLS + "consumer.group.ConsumerGroupCommand", all.toArray(String[]::new));
    }

    private void consoleGroup() throws Exception {
        String topic = group("console");
        String read = tool("", TOOLS + "consumer.ConsoleConsumer", "--bootstrap-server", cluster.bootstrap, "--topic",
                topic, "--group", topic, "--max-messages", "70", "--timeout-ms", "15000",
                "--formatter-property", "print.offset=true", "--formatter-property", "print.value=false");
        Checks.that(read.startsWith("Offset:30"), read);
        Checks.that(read.stripTrailing().endsWith("Offset:99"), read);
    }

    private void groupDescriptions() throws Exception {
        String group = group("described");
        Checks.that(groupCommand("--list").lines().anyMatch(group::equals), "the group is not listed");
        Checks.that(groupCommand("--list --state empty").contains(group), "the group is not listed as empty");
        String offsets = groupCommand("--describe --offsets --group " + group);
        Checks.that(offsets.lines().anyMatch(line -> line.matches(".* 0 +30 +100 +70 .*")), offsets);
        Checks.that(groupCommand("--describe --state --group " + group).contains("Empty"), "its state");
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer("group.id", group)) {
            consumer.subscribe(List.of(group));
            Checks.eventually("the consumer has its partition", () -> {
                consumer.poll(Duration.ofMillis(100));
                return consumer.assignment().size() == 1;
            });
            String members = groupCommand("--describe --members --verbose --group " + group);
            Checks.that(members.contains("/127.0.0.1") && members.contains(group + ":0"), members);
            String state = groupCommand("--describe --state --group " + group);
            Checks.that(state.contains("Stable") && state.contains("range"), state);
        }
    }

    private void groupResets(String what, List<List<String>> steps) throws Exception {
        String group = group("reset-" + what);
        for (List<String> step : steps) {
            String told = groupCommand("--reset-offsets --execute --topic " + group + " --group " + group + " "
                    + step.get(0));
            Checks.that(told.contains(step.get(1)), told);
            Checks.equal(Long.valueOf(step.get(1)), committed(group), "offset after " + step.get(0));
        }
    }

    private void groupResetFromFile() throws Exception {
        String group = group("reset-file");
        String exported = groupCommand(
                "--reset-offsets --dry-run --export --to-offset 55 --topic " + group + " --group " + group);
        Checks.that(exported.contains(group + "\",0,55") || exported.contains(group + ",0,55"), exported);
        Checks.equal(30L, committed(group), "a dry run changes nothing");
        File file = File.createTempFile("offsets", ".csv");
        try {
            Files.writeString(file.toPath(), group + ",0,55\n");
            groupCommand("--reset-offsets --execute --group " + group + " --from-file " + file);
        } finally {
            file.delete();
        }
        Checks.equal(55L, committed(group), "offset from the file");
    }

    private void groupDeletions() throws Exception {
        String group = group("deleted");
        String told = groupCommand("--delete-offsets --group " + group + " --topic " + group);
        Checks.that(told.contains("Successful"), told);
        Checks.equal(null, committed(group), "offset after its deletion");
        String other = group("deleted-whole");
        Checks.that(groupCommand("--delete --group " + other).contains("successful"), "the deletion");
        Checks.that(groupCommand("--list").lines().noneMatch(other::equals), "the group is still listed");
    }

    private Long committed(String group) throws Exception {
        OffsetAndMetadata found = cluster.admin
                .listConsumerGroupOffsets(group)
                .partitionsToOffsetAndMetadata()
                .get()
                .get(new TopicPartition(group, 0));
        return found == null ? null : found.offset();
    }

    /** Runs the class with this standard input; what it printed. It must end with exit code 0. */
    private static String tool(String input, String mainClass, String... arguments) throws Exception {
        List<String> command = new ArrayList<>(List.of("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
                "-Dorg.slf4j.simpleLogger.defaultLogLevel=off", "-cp", System.getenv("KAFKA_TOOLS_CLASSPATH"), mainClass));
        command.addAll(List.of(arguments));
        File output = File.createTempFile("tool", ".out");
        File errors = File.createTempFile("tool", ".err");
        try {
            Process process = new ProcessBuilder(command)
                    .redirectOutput(output)
                    .redirectError(errors)
                    .start();
            try (OutputStream stdin = process.getOutputStream()) {
                stdin.write(input.getBytes(StandardCharsets.UTF_8));
            }
            if (!process.waitFor(25, TimeUnit.SECONDS)) {
                process.destroyForcibly();
                throw new AssertionError(mainClass + " did not end");
            }
            Checks.equal(0, process.exitValue(), mainClass + ": " + Files.readString(errors.toPath())
                    + Files.readString(output.toPath()) + " exit code");
            return Files.readString(output.toPath());
        } finally {
            output.delete();
            errors.delete();
        }
    }
}
