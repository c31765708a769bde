import static java.util.Map.entry;

import java.io.BufferedWriter;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * An idempotent producer and a consumer of TOPIC with PARTITIONS partitions, until standard input ends. Every record is
 * "java:PARTITION:NUMBER", numbers of a partition from 0 on. Writes to ACKNOWLEDGED a line "partition offset value" for
 * each record that was acknowledged, to FAILED one with -1 as offset for each that was given up, to CONSUMED one for each
 * that was read. Ends with 0 when everything that was sent is either.
 */
final class Load {
    private static final long ROUND_PAUSE_MILLIS = 4;

    private final String topic = System.getenv("TOPIC");
    private final int partitions = Integer.parseInt(System.getenv("PARTITIONS"));
    private final AtomicBoolean ending = new AtomicBoolean();
    private final AtomicReference<Throwable> failure = new AtomicReference<>();

    public static void main(String[] args) throws Exception {
        System.exit(new Load().run());
    }

    private int run() throws Exception {
        Thread consumer = new Thread(this::consume, "consumer");
        consumer.start();
        Thread input = new Thread(this::awaitEnd, "input");
        input.setDaemon(true);
        input.start();
        produce();
        ending.set(true);
        consumer.join();
        Throwable failed = failure.get();
        if (failed != null) {
            failed.printStackTrace();
        }
        return failed == null ? 0 : 1;
    }

    private void awaitEnd() {
        try {
            while (System.in.read() >= 0) {
                // Only the end counts.
            }
        } catch (IOException e) {
            failure.compareAndSet(null, e);
        }
        ending.set(true);
    }

    private void produce() throws IOException, InterruptedException {
        Map<String, Object> config = Map.ofEntries(
                entry("bootstrap.servers", System.getenv("BOOTSTRAP")),
                entry("acks", "all"),
                entry("enable.idempotence", "true"),
                entry("linger.ms", "0"),
                entry("retry.backoff.ms", "20"),
                entry("retry.backoff.max.ms", "200"),
                entry("reconnect.backoff.ms", "20"),
                entry("reconnect.backoff.max.ms", "200"),
                entry("request.timeout.ms", "3000"),
                entry("delivery.timeout.ms", "20000"));
        try (BufferedWriter acknowledged = writer("ACKNOWLEDGED");
                BufferedWriter failed = writer("FAILED");
                KafkaProducer<String, String> producer =
                        new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            for (long number = 0; !ending.get() && failure.get() == null; number++) {
                for (int partition = 0; partition < partitions; partition++) {
                    String value = "java:" + partition + ":" + number;
                    producer.send(new ProducerRecord<>(topic, partition, null, value), (metadata, error) -> {
                        if (error != null) {
                            System.err.println(value + ": " + error);
                            write(failed, metadata.partition(), -1, value);
                        } else {
                            write(acknowledged, metadata.partition(), metadata.offset(), value);
                        }
                    });
                }
                Thread.sleep(ROUND_PAUSE_MILLIS);
            }
            producer.flush();
        }
    }

    private void consume() {
        Map<String, Object> config = Map.ofEntries(
                entry("bootstrap.servers", System.getenv("BOOTSTRAP")),
                entry("check.crcs", "true"),
                entry("enable.auto.commit", "false"),
                // Nothing that was there may be gone: a position out of range ends this.
                entry("auto.offset.reset", "none"),
                entry("retry.backoff.ms", "20"),
                entry("reconnect.backoff.ms", "20"),
                entry("reconnect.backoff.max.ms", "200"),
                entry("fetch.max.wait.ms", "100"),
                entry("request.timeout.ms", "3000"));
        List<TopicPartition> all = new ArrayList<>();
        for (int partition = 0; partition < partitions; partition++) {
            all.add(new TopicPartition(topic, partition));
        }
        try (BufferedWriter consumed = writer("CONSUMED");
                KafkaConsumer<String, String> consumer =
                        new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer())) {
            consumer.assign(all);
            for (TopicPartition partition : all) {
                consumer.seek(partition, 0);
            }
            while (!ending.get()) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                    write(consumed, record.partition(), record.offset(), record.value());
                }
            }
        } catch (Exception e) {
            failure.compareAndSet(null, e);
        }
    }

    private static BufferedWriter writer(String variable) throws IOException {
        return Files.newBufferedWriter(Path.of(System.getenv(variable)), StandardCharsets.UTF_8);
    }

    private void write(BufferedWriter to, int partition, long offset, String value) {
        try {
            to.write(partition + " " + offset + " " + value + "\n");
        } catch (IOException e) {
            failure.compareAndSet(null, e);
        }
    }
}
