import java.io.File;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.OffsetSpec;
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
