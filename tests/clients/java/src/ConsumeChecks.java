import static java.nio.charset.StandardCharsets.UTF_8;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.TimeoutException;

/** Consumers with assigned partitions: positions, limits, sessions, long polls and what is out of range. */
final class ConsumeChecks {
    private final Checks checks;
    private final Cluster cluster;

    ConsumeChecks(Checks checks, Cluster cluster) {
        this.checks = checks;
        this.cluster = cluster;
    }

    void run() {
        checks.check("consume_from_earliest_latest_and_offset", this::startPositions);
        checks.check("offsets_for_times_find_the_first_record_not_earlier", this::offsetsForTimes);
        checks.check("offsets_of_an_empty_partition", this::emptyPartition);
        checks.check("out_of_range_is_reported_without_reset_policy", this::outOfRangeIsReported);
        checks.check("out_of_range_resets_to_the_policys_end", this::outOfRangeResets);
        checks.check("long_poll_returns_when_a_record_arrives", this::longPollReturns);
        checks.check("long_poll_waits_for_min_bytes", this::longPollWaitsForMinBytes);
        checks.check("record_over_fetch_limits_is_still_read", this::recordOverFetchLimits);
        checks.check("small_fetches_read_everything", this::smallFetches);
        checks.check("seek_into_the_middle_of_a_batch", this::seekIntoBatch);
        checks.check("fetch_session_follows_assignment_changes", this::fetchSession);
        checks.check("pause_and_resume", this::pauseAndResume);
        checks.check("read_committed_reads_to_the_end", this::readCommitted);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            checks.check("compacted_topic_keeps_the_newest_of_every_key_" + codec, () -> compactedTopic(codec));
        }
        checks.check("consumer_over_many_topics", this::manyTopics);
        checks.check("unknown_topic_has_no_partitions", this::unknownTopic);
        checks.check("partitions_are_listed_to_a_consumer", this::partitionsAreListed);
    }

    private void startPositions() throws Exception {
        String topic = filled("positions", 1, 100);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer("auto.offset.reset", "earliest")) {
            consumer.assign(List.of(partition));
            Checks.equal(0L, consumer.position(partition), "position of earliest");
            Checks.equal(0L, Cluster.poll(consumer, 100).get(0).offset(), "first offset");
            consumer.seek(partition, 40);
            Checks.equal(40L, Cluster.poll(consumer, 60).get(0).offset(), "offset after seek");
            Checks.equal(Map.of(partition, 0L), consumer.beginningOffsets(List.of(partition)), "beginning");
            Checks.equal(Map.of(partition, 100L), consumer.endOffsets(List.of(partition)), "end");
        }
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer("auto.offset.reset", "latest");
                KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            consumer.assign(List.of(partition));
            Checks.equal(100L, consumer.position(partition), "position of latest");
            Cluster.send(producer, Cluster.records(topic, 1, 5, 10));
            Checks.equal(100L, Cluster.poll(consumer, 5).get(0).offset(), "first new offset");
        }
    }

    private void offsetsForTimes() throws Exception {
        String topic = cluster.topic("times", 2);
        TopicPartition partition = new TopicPartition(topic, 0);
        TopicPartition empty = new TopicPartition(topic, 1);
        // One batch a record: the search must cross batches, while list-offsets with one batch is the admin's check.
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer("batch.size", "0")) {
            for (ProducerRecord<byte[], byte[]> record : Timestamps.records(topic)) {
                producer.send(record).get(10, TimeUnit.SECONDS);
            }
        }
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer()) {
            long[][] expected = {{0, 0}, {1, 1}, {10, 1}, {11, 2}, {21, 3}, {30, 3}};
            for (long[] pair : expected) {
                OffsetAndTimestamp found = offsetForTime(consumer, partition, Timestamps.BASE + pair[0]);
                Checks.equal(pair[1], found.offset(), "offset for " + pair[0] + " ms");
                Checks.equal(
                        Timestamps.BASE + Timestamps.AFTER_BASE[(int) pair[1]], found.timestamp(), "its timestamp");
            }
            Checks.equal(null, offsetForTime(consumer, partition, Timestamps.BASE + 31), "offset after all");
            Checks.equal(null, offsetForTime(consumer, empty, Timestamps.BASE), "offset in an empty partition");
        }
    }

    private static OffsetAndTimestamp offsetForTime(
            KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition, long time) {
        return consumer.offsetsForTimes(Map.of(partition, time)).get(partition);
    }

    private void emptyPartition() throws Exception {
        TopicPartition partition = new TopicPartition(cluster.topic("empty", 1), 0);
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer()) {
            Checks.equal(0L, consumer.beginningOffsets(List.of(partition)).get(partition), "beginning");
            Checks.equal(0L, consumer.endOffsets(List.of(partition)).get(partition), "end");
            consumer.assign(List.of(partition));
            consumer.seekToEnd(List.of(partition));
            Checks.equal(0L, consumer.position(partition), "position of the end");
            Checks.equal(0, consumer.poll(Duration.ofMillis(200)).count(), "records");
        }
    }

    private void outOfRangeIsReported() throws Exception {
        TopicPartition partition = new TopicPartition(filled("range-none", 1, 50), 0);
        cluster.admin
                .deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(10)))
                .all()
                .get();
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer()) {
            consumer.assign(List.of(partition));
            for (long offset : new long[] {51, 1_000_000, 9, 0}) {
                consumer.seek(partition, offset);
                OffsetOutOfRangeException error =
                        Checks.fails(OffsetOutOfRangeException.class, () -> Cluster.poll(consumer, 1));
                Checks.equal(Map.of(partition, offset), error.offsetOutOfRangePartitions(), "offset in the error");
            }
            // The end itself is in range, and has nothing yet.
            consumer.seek(partition, 50);
            Checks.equal(0, consumer.poll(Duration.ofMillis(300)).count(), "records at the end");
        }
    }

    private void outOfRangeResets() throws Exception {
        TopicPartition partition = new TopicPartition(filled("range-reset", 1, 50), 0);
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer("auto.offset.reset", "earliest")) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, 1_000);
            Checks.equal(0L, Cluster.poll(consumer, 50).get(0).offset(), "offset after reset");
        }
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer("auto.offset.reset", "latest")) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, 1_000);
            Checks.eventually("position is the end", () -> {
                consumer.poll(Duration.ofMillis(50));
                return consumer.position(partition) == 50;
            });
        }
    }

    private void longPollReturns() throws Exception {
        TopicPartition partition = new TopicPartition(cluster.topic("long-poll", 1), 0);
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer(
                        "fetch.max.wait.ms", "25000", "request.timeout.ms", "28000", "default.api.timeout.ms", "29000");
                KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            consumer.assign(List.of(partition));
            consumer.seekToEnd(List.of(partition));
            consumer.position(partition);
            // Sends the fetch, which then stays parked at the broker.
            Checks.equal(0, consumer.poll(Duration.ofMillis(500)).count(), "records before");
            Cluster.send(producer, Cluster.records(partition.topic(), 1, 1, 10));
            Checks.equal(1, consumer.poll(Duration.ofSeconds(12)).count(), "records well within the fetch's wait");
            consumer.close(CloseOptions.timeout(Duration.ZERO));
        }
    }

    private void longPollWaitsForMinBytes() throws Exception {
        TopicPartition partition = new TopicPartition(cluster.topic("min-bytes", 1), 0);
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer(
                        "fetch.max.wait.ms", "25000",
                        "fetch.min.bytes", "10000",
                        "request.timeout.ms", "28000",
                        "default.api.timeout.ms", "29000");
                KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, 0);
            producer.send(new ProducerRecord<>(partition.topic(), 0, null, new byte[1_000])).get();
            Checks.equal(0, consumer.poll(Duration.ofMillis(500)).count(), "records below fetch.min.bytes");
            producer.send(new ProducerRecord<>(partition.topic(), 0, null, new byte[10_000])).get();
            Checks.equal(2, consumer.poll(Duration.ofSeconds(12)).count(), "records above fetch.min.bytes");
            consumer.close(CloseOptions.timeout(Duration.ZERO));
        }
    }

    private void recordOverFetchLimits() throws Exception {
        String topic = cluster.topic("fetch-limits", 2);
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < 10; i++) {
            records.add(new ProducerRecord<>(topic, i % 2, null, new byte[50_000 + i]));
        }
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            Cluster.send(producer, records);
        }
        Cluster.same(records, cluster.read(topic, 2, 10, "max.partition.fetch.bytes", "1", "fetch.max.bytes", "1"));
    }

    private void smallFetches() throws Exception {
        String topic = cluster.topic("small-fetches", 3);
        List<ProducerRecord<byte[], byte[]>> records = Cluster.records(topic, 3, 3_000, 200);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer("batch.size", "2000")) {
            Cluster.send(producer, records);
        }
        Cluster.same(
                records,
                cluster.read(topic, 3, 3_000, "max.partition.fetch.bytes", "5000", "fetch.max.bytes", "12000"));
    }

    private void seekIntoBatch() throws Exception {
        String topic = cluster.topic("seek", 1);
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaProducer<byte[], byte[]> producer =
                        cluster.producer("linger.ms", "200", "batch.size", "500000", "compression.type", "zstd");
                KafkaConsumer<byte[], byte[]> consumer = cluster.consumer()) {
            Cluster.send(producer, Cluster.records(topic, 1, 1_000, 50));
            consumer.assign(List.of(partition));
            for (long offset : new long[] {999, 500, 1}) {
                consumer.seek(partition, offset);
                Checks.equal(offset, Cluster.poll(consumer, (int) (1_000 - offset)).get(0).offset(), "first offset");
            }
        }
    }

    private void fetchSession() throws Exception {
        String topic = cluster.topic("session", 6);
        List<TopicPartition> partitions = new ArrayList<>();
        for (int p = 0; p < 6; p++) {
            partitions.add(new TopicPartition(topic, p));
        }
        Map<TopicPartition, Long> next = new HashMap<>();
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer();
                KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            // Each round drops one partition of the session and adds another one.
            for (int round = 0; round < 12; round++) {
                Cluster.send(producer, Cluster.records(topic, 6, 60, 100));
                List<TopicPartition> now = new ArrayList<>();
                int expected = 0;
                for (int i = 0; i < 3; i++) {
                    TopicPartition partition = partitions.get((round + i) % 6);
                    now.add(partition);
                    expected += (int) (10L * (round + 1) - next.getOrDefault(partition, 0L));
                }
                consumer.assign(now);
                now.forEach(partition -> consumer.seek(partition, next.getOrDefault(partition, 0L)));
                for (ConsumerRecord<byte[], byte[]> record : Cluster.poll(consumer, expected)) {
                    TopicPartition partition = new TopicPartition(topic, record.partition());
                    Checks.that(now.contains(partition), "record of a partition that was dropped");
                    Checks.equal(next.getOrDefault(partition, 0L), record.offset(), "offset in " + partition);
                    next.put(partition, record.offset() + 1);
                }
            }
        }
    }

    private void pauseAndResume() throws Exception {
        String topic = filled("pause", 2, 100);
        TopicPartition paused = new TopicPartition(topic, 0);
        TopicPartition other = new TopicPartition(topic, 1);
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer()) {
            consumer.assign(List.of(paused, other));
            consumer.seekToBeginning(List.of(paused, other));
            consumer.pause(List.of(paused));
            for (ConsumerRecord<byte[], byte[]> record : Cluster.poll(consumer, 50)) {
                Checks.equal(1, record.partition(), "partition while the other is paused");
            }
            consumer.resume(List.of(paused));
            for (ConsumerRecord<byte[], byte[]> record : Cluster.poll(consumer, 50)) {
                Checks.equal(0, record.partition(), "partition after resume");
            }
        }
    }

    private void readCommitted() throws Exception {
        String topic = cluster.topic("committed", 2);
        List<ProducerRecord<byte[], byte[]>> records = Cluster.records(topic, 2, 500, 100);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer("enable.idempotence", "true")) {
            Cluster.send(producer, records);
        }
        Cluster.same(records, cluster.read(topic, 2, 500, "isolation.level", "read_committed"));
        TopicPartition partition = new TopicPartition(topic, 0);
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer("isolation.level", "read_committed")) {
            Checks.equal(250L, consumer.endOffsets(List.of(partition)).get(partition), "last stable offset");
        }
    }

    /** A record as far as compaction is about it. */
    private record Kept(long offset, String key, String value) {
        static Kept of(long offset, byte[] key, byte[] value) {
            return new Kept(offset, new String(key, UTF_8), value == null ? null : new String(value, UTF_8));
        }
    }

    /** Keys that come again and again, keys that come once, and tombstones of either: what stays has holes around it. */
    private static List<ProducerRecord<byte[], byte[]>> keyedRecords(String topic) {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int i = 0; i < 300; i++) {
            String key = i % 20 == 0 ? "once-" + i : "key-" + i % 7;
            String value = i % 60 == 0 || i == 297 ? null : i + " ".repeat(400);
            records.add(new ProducerRecord<>(
                    topic, 0, key.getBytes(UTF_8), value == null ? null : value.getBytes(UTF_8)));
        }
        return records;
    }

    /** The newest record of every key, as far as it is at this offset or behind. */
    private static List<Kept> newest(List<ProducerRecord<byte[], byte[]>> written, long begin) {
        Map<String, Kept> last = new HashMap<>();
        for (int i = 0; i < written.size(); i++) {
            Kept kept = Kept.of(i, written.get(i).key(), written.get(i).value());
            last.put(kept.key(), kept);
        }
        return last.values().stream()
                .filter(kept -> kept.offset() >= begin)
                .sorted(Comparator.comparingLong(Kept::offset))
                .toList();
    }

    /** What is read from an offset on until the position is the partition's end, as far as it is below the limit. */
    private static List<Kept> readToEnd(
            KafkaConsumer<byte[], byte[]> consumer, TopicPartition partition, long begin, long limit) {
        List<Kept> kept = new ArrayList<>();
        long end = consumer.endOffsets(List.of(partition)).get(partition);
        long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(15);
        consumer.seek(partition, begin);
        while (consumer.position(partition) < end) {
            Checks.that(System.nanoTime() < deadline, "the end is read");
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                if (record.offset() < limit) {
                    kept.add(Kept.of(record.offset(), record.key(), record.value()));
                }
            }
        }
        return kept;
    }

    private void compactedTopic(String codec) throws Exception {
        Map<String, String> configs = Map.of(
                "cleanup.policy", "compact", "segment.bytes", "1048576", "min.cleanable.dirty.ratio", "0.01");
        TopicPartition partition = new TopicPartition(cluster.topic("compact-" + codec, 1, configs), 0);
        List<ProducerRecord<byte[], byte[]>> written = keyedRecords(partition.topic());
        // Only closed segments are compacted. A record of this size closes one.
        List<ProducerRecord<byte[], byte[]>> closing = List.of(
                new ProducerRecord<>(partition.topic(), 0, "closing".getBytes(UTF_8), new byte[900_000]));
        long limit = written.size();
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer("compression.type", codec);
                KafkaProducer<byte[], byte[]> plain = cluster.producer();
                KafkaConsumer<byte[], byte[]> consumer = cluster.consumer("isolation.level", "read_committed")) {
            Cluster.send(producer, written);
            Cluster.send(plain, closing);
            Cluster.send(plain, closing);
            consumer.assign(List.of(partition));
            Checks.eventually("one record of every key, at its offset", () -> {
                List<Kept> found = readToEnd(consumer, partition, 0, limit);
                // Each look is something new, so that the log is dirty.
                Cluster.send(plain, closing);
                return found.equals(newest(written, 0));
            });
            for (long begin : new long[] {1, 21, 281}) {
                List<Kept> found = readToEnd(consumer, partition, begin, limit);
                Checks.equal(newest(written, begin), found, "what follows the hole at " + begin);
            }
        }
    }

    private void manyTopics() throws Exception {
        List<TopicPartition> partitions = new ArrayList<>();
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer();
                KafkaConsumer<byte[], byte[]> consumer = cluster.consumer()) {
            List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
            for (int i = 0; i < 15; i++) {
                String topic = cluster.topic("topics-" + i, 3);
                records.addAll(Cluster.records(topic, 3, 30, 50));
                for (int p = 0; p < 3; p++) {
                    partitions.add(new TopicPartition(topic, p));
                }
            }
            Cluster.send(producer, records);
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Integer> counts = new HashMap<>();
            for (ConsumerRecord<byte[], byte[]> record : Cluster.poll(consumer, 450)) {
                counts.merge(new TopicPartition(record.topic(), record.partition()), 1, Integer::sum);
            }
            for (TopicPartition partition : partitions) {
                Checks.equal(10, counts.get(partition), "records of " + partition);
            }
        }
    }

    private void unknownTopic() throws Exception {
        String topic = cluster.name("absent");
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer()) {
            Checks.equal(List.of(), consumer.partitionsFor(topic), "partitions of an unknown topic");
            Checks.fails(
                    TimeoutException.class,
                    () -> consumer.endOffsets(List.of(new TopicPartition(topic, 0)), Duration.ofMillis(500)));
            Checks.fails(InvalidTopicException.class, () -> consumer.partitionsFor("not a topic"));
            Checks.that(!consumer.listTopics().containsKey(topic), "asking created the topic");
        }
    }

    private void partitionsAreListed() throws Exception {
        String topic = cluster.topic("partitions-for", 4);
        try (KafkaConsumer<byte[], byte[]> consumer = cluster.consumer()) {
            List<PartitionInfo> partitions = consumer.partitionsFor(topic);
            Checks.equal(4, partitions.size(), "partitions");
            for (PartitionInfo partition : partitions) {
                Checks.that(partition.leader() != null, "leader of " + partition);
            }
            Checks.equal(4, consumer.listTopics().get(topic).size(), "partitions in the list of topics");
        }
    }

    /** A topic with this many records in all, dealt to its partitions. */
    private String filled(String what, int partitions, int records) throws Exception {
        String topic = cluster.topic(what, partitions);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            Cluster.send(producer, Cluster.records(topic, partitions, records, 100));
        }
        return topic;
    }
}
