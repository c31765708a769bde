import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.errors.InvalidTimestampException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.record.TimestampType;

/** What producers send comes back byte for byte, at every acks level and with every codec; what is wrong is refused. */
final class ProduceChecks {
    private static final List<String> CODECS = List.of("none", "gzip", "snappy", "lz4", "zstd");

    private final Checks checks;
    private final Cluster cluster;

    ProduceChecks(Checks checks, Cluster cluster) {
        this.checks = checks;
        this.cluster = cluster;
    }

    void run() {
        for (String codec : CODECS) {
            for (String acks : List.of("0", "1", "all")) {
                checks.check("codec_" + codec + "_acks_" + acks, () -> roundTrip(codec, acks, false));
            }
            checks.check("codec_" + codec + "_idempotent", () -> roundTrip(codec, "all", true));
            checks.check("codec_" + codec + "_large_batches", () -> largeBatches(codec));
        }
        checks.check("null_and_empty_keys_values_and_headers_are_kept", this::nullsAreKept);
        checks.check("many_small_records_over_three_partitions", this::manySmallRecords);
        checks.check("one_batch_holds_thousands_of_records", this::oneBatchOfThousands);
        checks.check("idempotent_order_is_kept_with_five_in_flight", this::orderIsKept);
        checks.check("several_producers_interleave_without_loss", this::severalProducers);
        checks.check("record_over_max_message_bytes_is_refused", this::tooLargeIsRefused);
        checks.check("create_time_is_kept", this::createTimeIsKept);
        checks.check("log_append_time_replaces_the_clients", this::logAppendTime);
        checks.check("timestamp_too_far_in_the_future_is_refused", this::futureTimestampIsRefused);
        checks.check("min_insync_replicas_is_capped_by_the_replication_factor", this::minInsyncReplicas);
        checks.check("producer_creates_a_missing_topic", this::autoCreation);
        checks.check("invalid_topic_name_is_refused_to_a_producer", this::invalidTopicName);
        checks.check("partition_out_of_range_times_out", this::partitionOutOfRange);
        checks.check("broker_compresses_with_the_topics_codec", this::brokerCompresses);
    }

    private void roundTrip(String codec, String acks, boolean idempotent) throws Exception {
        String topic = cluster.topic(codec + "-" + acks + "-" + idempotent, 3);
        List<ProducerRecord<byte[], byte[]>> records = Cluster.records(topic, 3, 600, 400);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer(
                "compression.type", codec, "acks", acks, "enable.idempotence", "" + idempotent)) {
            List<RecordMetadata> metadata = Cluster.send(producer, records);
            if (!acks.equals("0")) {
                for (int i = 0; i < records.size(); i++) {
                    Checks.equal((long) (i / 3), metadata.get(i).offset(), "acknowledged offset");
                }
            }
        }
        Cluster.same(records, cluster.read(topic, 3, records.size()));
    }

    private void largeBatches(String codec) throws Exception {
        String topic = cluster.topic("large-" + codec, 2);
        List<ProducerRecord<byte[], byte[]>> records = Cluster.records(topic, 2, 60, 60_000);
        records.add(new ProducerRecord<>(topic, 0, null, Cluster.bytes(new Random(1), 900 * 1024)));
        records.add(new ProducerRecord<>(topic, 1, null, new byte[900 * 1024]));
        try (KafkaProducer<byte[], byte[]> producer =
                cluster.producer("compression.type", codec, "batch.size", "500000", "linger.ms", "50")) {
            Cluster.send(producer, records);
        }
        Cluster.same(records, cluster.read(topic, 2, records.size()));
    }

    private void nullsAreKept() throws Exception {
        String topic = cluster.topic("nulls", 1);
        byte[] empty = {};
        byte[] some = {1, 2, 3};
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (byte[] key : Arrays.asList(null, empty, some)) {
            for (byte[] value : Arrays.asList(null, empty, some)) {
                records.add(new ProducerRecord<>(topic, 0, key, value));
            }
        }
        ProducerRecord<byte[], byte[]> headers = new ProducerRecord<>(topic, 0, some, some);
        headers.headers().add("same", some).add("same", empty).add("null", null).add("", some).add("ключ", some);
        records.add(headers);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            Cluster.send(producer, records);
        }
        Cluster.same(records, cluster.read(topic, 1, records.size()));
    }

    private void manySmallRecords() throws Exception {
        String topic = cluster.topic("small", 3);
        List<ProducerRecord<byte[], byte[]>> records = Cluster.records(topic, 3, 20_000, 40);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            Cluster.send(producer, records);
        }
        Cluster.same(records, cluster.read(topic, 3, records.size()));
    }

    private void oneBatchOfThousands() throws Exception {
        String topic = cluster.topic("batch", 1);
        List<ProducerRecord<byte[], byte[]>> records = Cluster.records(topic, 1, 5_000, 20);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer("batch.size", "900000", "linger.ms", "500")) {
            Cluster.send(producer, records);
        }
        Cluster.same(records, cluster.read(topic, 1, records.size()));
    }

    private void orderIsKept() throws Exception {
        String topic = cluster.topic("order", 4);
        List<ProducerRecord<byte[], byte[]>> records = Cluster.records(topic, 4, 8_000, 100);
        // Small batches without linger, so that five requests are in flight at all times.
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer(
                "enable.idempotence", "true",
                "max.in.flight.requests.per.connection", "5",
                "batch.size", "1000",
                "linger.ms", "0")) {
            List<RecordMetadata> metadata = Cluster.send(producer, records);
            for (int i = 0; i < records.size(); i++) {
                Checks.equal((long) (i / 4), metadata.get(i).offset(), "acknowledged offset");
            }
        }
        Cluster.same(records, cluster.read(topic, 4, records.size()));
    }

    private void severalProducers() throws Exception {
        String topic = cluster.topic("several", 1);
        List<CompletableFuture<Void>> running = new ArrayList<>();
        for (int i = 0; i < 4; i++) {
            byte id = (byte) i;
            running.add(CompletableFuture.runAsync(() -> {
                try (KafkaProducer<byte[], byte[]> producer = cluster.producer("batch.size", "500")) {
                    List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
                    for (int n = 0; n < 1_000; n++) {
                        records.add(new ProducerRecord<>(topic, 0, new byte[] {id}, ("" + n).getBytes()));
                    }
                    Cluster.send(producer, records);
                } catch (Exception e) {
                    throw new IllegalStateException(e);
                }
            }));
        }
        CompletableFuture.allOf(running.toArray(CompletableFuture[]::new)).get(20, TimeUnit.SECONDS);
        int[] next = new int[4];
        long offset = 0;
        for (ConsumerRecord<byte[], byte[]> record : cluster.read(topic, 1, 4_000)) {
            Checks.equal(offset++, record.offset(), "offset");
            int id = record.key()[0];
            Checks.equal("" + next[id]++, new String(record.value()), "record of producer " + id);
        }
    }

    private void tooLargeIsRefused() throws Exception {
        String topic = cluster.topic("too-large", 1, Map.of("max.message.bytes", "10000"));
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            ProducerRecord<byte[], byte[]> large = new ProducerRecord<>(topic, 0, null, new byte[20_000]);
            Checks.fails(RecordTooLargeException.class, () -> producer.send(large).get());
            ProducerRecord<byte[], byte[]> small = new ProducerRecord<>(topic, 0, null, new byte[5_000]);
            Checks.equal(0L, producer.send(small).get().offset(), "offset of the record that fits");
        }
        // The broker's own default limit, 1 MiB and 12 bytes of the old batch overhead.
        String standard = cluster.topic("too-large-default", 1);
        try (KafkaProducer<byte[], byte[]> producer =
                cluster.producer("max.request.size", "4000000", "buffer.memory", "33554432")) {
            ProducerRecord<byte[], byte[]> large = new ProducerRecord<>(standard, 0, null, new byte[1_100_000]);
            Checks.fails(RecordTooLargeException.class, () -> producer.send(large).get());
        }
    }

    private void createTimeIsKept() throws Exception {
        String topic = cluster.topic("create-time", 1);
        List<ProducerRecord<byte[], byte[]>> records = Timestamps.records(topic);
        records.add(new ProducerRecord<>(topic, 0, 0L, null, new byte[] {1}));
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            List<RecordMetadata> metadata = Cluster.send(producer, records);
            Checks.equal(records.get(0).timestamp(), metadata.get(0).timestamp(), "acknowledged timestamp");
        }
        List<ConsumerRecord<byte[], byte[]>> read = cluster.read(topic, 1, records.size());
        Cluster.same(records, read);
        Checks.equal(TimestampType.CREATE_TIME, read.get(0).timestampType(), "timestamp type");
    }

    private void logAppendTime() throws Exception {
        String topic = cluster.topic("append-time", 1, Map.of("message.timestamp.type", "LogAppendTime"));
        long before = System.currentTimeMillis();
        long acknowledged;
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer("compression.type", "lz4")) {
            acknowledged = Cluster.send(producer, Timestamps.records(topic)).get(4).timestamp();
        }
        for (ConsumerRecord<byte[], byte[]> record : cluster.read(topic, 1, 5)) {
            Checks.equal(TimestampType.LOG_APPEND_TIME, record.timestampType(), "timestamp type");
            Checks.that(record.timestamp() >= before, "timestamp is the broker's");
            Checks.equal(acknowledged, record.timestamp(), "timestamp acknowledged and read");
        }
    }

    private void futureTimestampIsRefused() throws Exception {
        String topic = cluster.topic("future", 1, Map.of("message.timestamp.after.max.ms", "60000"));
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            long future = System.currentTimeMillis() + 3_600_000;
            Checks.fails(InvalidTimestampException.class, () -> producer.send(
                            new ProducerRecord<>(topic, 0, future, null, new byte[] {1}))
                    .get());
            Checks.equal(0L, producer.send(new ProducerRecord<>(topic, 0, null, new byte[] {1})).get().offset(), "offset");
        }
    }

    private void minInsyncReplicas() throws Exception {
        String topic = cluster.topic("min-isr", 1, Map.of("min.insync.replicas", String.valueOf(cluster.replicas + 1)));
        List<ProducerRecord<byte[], byte[]>> records = Cluster.records(topic, 1, 10, 100);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            Cluster.send(producer, records);
        }
        Cluster.same(records, cluster.read(topic, 1, records.size()));
    }

    private void autoCreation() throws Exception {
        String topic = cluster.name("auto");
        List<ProducerRecord<byte[], byte[]>> records = Cluster.records(topic, 1, 10, 100);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            Cluster.send(producer, records);
        }
        Cluster.same(records, cluster.read(topic, 1, records.size()));
    }

    private void invalidTopicName() {
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            Checks.fails(InvalidTopicException.class, () -> producer.send(
                            new ProducerRecord<>("not a topic", new byte[] {1}))
                    .get());
        } catch (Exception e) {
            throw new AssertionError(e.getMessage(), e);
        }
    }

    private void partitionOutOfRange() throws Exception {
        String topic = cluster.topic("range", 2);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer("max.block.ms", "700")) {
            Checks.fails(TimeoutException.class, () -> producer.send(
                            new ProducerRecord<>(topic, 2, null, new byte[] {1}))
                    .get());
        }
    }

    private void brokerCompresses() throws Exception {
        String topic = cluster.topic("recompress", 2, Map.of("compression.type", "gzip"));
        List<ProducerRecord<byte[], byte[]>> records = Cluster.records(topic, 2, 400, 300);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer("compression.type", "zstd")) {
            Cluster.send(producer, records);
        }
        Cluster.same(records, cluster.read(topic, 2, records.size()));
    }
}
