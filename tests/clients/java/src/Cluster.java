import static java.util.Map.entry;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The broker under test: makes clients for it, topics with names of this run, and records to compare. */
final class Cluster implements AutoCloseable {
    final String bootstrap;
    /** Of topics, unless a check is about that. */
    final short replicas = Short.parseShort(Objects.requireNonNullElse(System.getenv("REPLICAS"), "1"));
    final Admin admin;
    private final String run = "java-" + Long.toString(System.currentTimeMillis(), 36) + "-"
            + Long.toString(ProcessHandle.current().pid(), 36);

    Cluster(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of(
                "bootstrap.servers", bootstrap,
                "default.api.timeout.ms", "20000",
                "request.timeout.ms", "10000"));
    }

    @Override
    public void close() {
        admin.close(Duration.ofSeconds(5));
    }

    /** A topic name that no other run uses. */
    String name(String what) {
        return run + "-" + what;
    }

    String topic(String what, int partitions) throws Exception {
        return topic(what, partitions, Map.of());
    }

    String topic(String what, int partitions, Map<String, String> configs) throws Exception {
        NewTopic topic = new NewTopic(name(what), partitions, replicas).configs(configs);
        admin.createTopics(List.of(topic)).all().get();
        awaitLeaders(topic.name(), partitions);
        return topic.name();
    }

    /**
     * Kafka acknowledges a topic a moment before its leaders serve. A producer that meets that moment is answered with a
     * retriable error and may then send its batches in another order, which is not what these checks are about.
     */
    private void awaitLeaders(String topic, int partitions) throws Exception {
        Map<TopicPartition, OffsetSpec> all = new HashMap<>();
        for (int p = 0; p < partitions; p++) {
            all.put(new TopicPartition(topic, p), OffsetSpec.latest());
        }
        Checks.eventually("leaders of " + topic + " answer", () -> {
            try {
                return admin.listOffsets(all).all().get() != null;
            } catch (ExecutionException e) {
                if (e.getCause() instanceof UnknownTopicOrPartitionException) {
                    return false;
                }
                throw e;
            }
        });
    }

    /** Settings come as key, value, key, value. */
    KafkaProducer<byte[], byte[]> producer(String... settings) {
        Map<String, Object> config = new HashMap<>(Map.ofEntries(
                entry("bootstrap.servers", bootstrap),
                entry("delivery.timeout.ms", "15000"),
                entry("request.timeout.ms", "10000"),
                entry("max.block.ms", "15000"),
                entry("linger.ms", "5")));
        put(config, settings);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    /** Without further settings: CRCs are checked and nothing resets a position silently. */
    KafkaConsumer<byte[], byte[]> consumer(String... settings) {
        Map<String, Object> config = new HashMap<>(Map.ofEntries(
                entry("bootstrap.servers", bootstrap),
                entry("check.crcs", "true"),
                entry("enable.auto.commit", "false"),
                entry("auto.offset.reset", "none"),
                entry("allow.auto.create.topics", "false"),
                // Closing a consumer waits for the fetch that is parked at the broker.
                entry("fetch.max.wait.ms", "50"),
                entry("default.api.timeout.ms", "15000"),
                entry("request.timeout.ms", "14000")));
        put(config, settings);
        return new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void put(Map<String, Object> config, String... settings) {
        for (int i = 0; i < settings.length; i += 2) {
            config.put(settings[i], settings[i + 1]);
        }
    }

    /** Sends all, waits for all; the metadata in the order of the records. */
    static List<RecordMetadata> send(
            KafkaProducer<byte[], byte[]> producer, Collection<ProducerRecord<byte[], byte[]>> records)
            throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (ProducerRecord<byte[], byte[]> record : records) {
            sent.add(producer.send(record));
        }
        producer.flush();
        List<RecordMetadata> metadata = new ArrayList<>();
        for (Future<RecordMetadata> one : sent) {
            metadata.add(one.get(20, TimeUnit.SECONDS));
        }
        return metadata;
    }

    /** Reads every partition from the beginning until it has this many records in all. */
    List<ConsumerRecord<byte[], byte[]>> read(String topic, int partitions, int records, String... settings) {
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(settings)) {
            List<TopicPartition> all = new ArrayList<>();
            for (int p = 0; p < partitions; p++) {
                all.add(new TopicPartition(topic, p));
            }
            consumer.assign(all);
            consumer.seekToBeginning(all);
            return poll(consumer, records);
        }
    }

    /** Polls until there are this many records. More than asked for is an error of the broker, and is seen. */
    static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> consumer, int records) {
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(20);
        while (got.size() < records && System.nanoTime() < deadline) {
            consumer.poll(Duration.ofMillis(200)).forEach(got::add);
        }
        Checks.equal(records, got.size(), "records read");
        return got;
    }

    /** Compares what was sent with what was read, partition by partition, byte for byte. Offsets start at 0. */
    static void same(List<ProducerRecord<byte[], byte[]>> sent, List<ConsumerRecord<byte[], byte[]>> read) {
        Map<Integer, List<ProducerRecord<byte[], byte[]>>> expected = new TreeMap<>();
        for (ProducerRecord<byte[], byte[]> record : sent) {
            expected.computeIfAbsent(record.partition(), p -> new ArrayList<>()).add(record);
        }
        Map<Integer, Integer> next = new HashMap<>();
        for (ConsumerRecord<byte[], byte[]> got : read) {
            int index = next.merge(got.partition(), 1, Integer::sum) - 1;
            String where = got.topic() + "-" + got.partition() + "@" + got.offset();
            Checks.equal((long) index, got.offset(), "offset in " + where);
            List<ProducerRecord<byte[], byte[]>> partition = expected.getOrDefault(got.partition(), List.of());
            Checks.that(index < partition.size(), "more records than were sent: " + where);
            ProducerRecord<byte[], byte[]> want = partition.get(index);
            Checks.that(Arrays.equals(want.key(), got.key()), "key differs at " + where);
            Checks.that(Arrays.equals(want.value(), got.value()), "value differs at " + where);
            if (want.timestamp() != null) {
                Checks.equal(want.timestamp(), got.timestamp(), "timestamp at " + where);
            }
            Checks.equal(headers(want.headers()), headers(got.headers()), "headers at " + where);
        }
        Checks.equal(sent.size(), read.size(), "records");
    }

    private static List<Map.Entry<String, String>> headers(Iterable<Header> headers) {
        List<Map.Entry<String, String>> list = new ArrayList<>();
        for (Header header : headers) {
            list.add(Map.entry(header.key(), Arrays.toString(header.value())));
        }
        return list;
    }

    /** Half random bytes, half repeated ones, so that a codec has something to do. */
    static byte[] bytes(Random random, int size) {
        byte[] bytes = new byte[size];
        random.nextBytes(bytes);
        Arrays.fill(bytes, 0, size / 2, (byte) size);
        return bytes;
    }

    /** Records with keys, values, headers and timestamps, dealt to the partitions in turn. */
    static List<ProducerRecord<byte[], byte[]>> records(String topic, int partitions, int count, int sizeMax) {
        Random random = new Random(count * 31L + sizeMax);
        long timestamp = System.currentTimeMillis();
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(topic, i % partitions, timestamp + i / 100,
                    bytes(random, random.nextInt(20)), bytes(random, random.nextInt(sizeMax)));
            if (i % 3 == 0) {
                record.headers().add("h" + i, bytes(random, random.nextInt(30)));
            }
            records.add(record);
        }
        return records;
    }
}
