import static org.apache.kafka.clients.admin.AlterConfigOp.OpType.APPEND;
import static org.apache.kafka.clients.admin.AlterConfigOp.OpType.DELETE;
import static org.apache.kafka.clients.admin.AlterConfigOp.OpType.SET;
import static org.apache.kafka.clients.admin.AlterConfigOp.OpType.SUBTRACT;

import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** Admin calls: cluster, topics, partitions, configs, deletion of records and of topics. */
final class AdminChecks {
    private final Checks checks;
    private final Cluster cluster;

    AdminChecks(Checks checks, Cluster cluster) {
        this.checks = checks;
        this.cluster = cluster;
    }

    void run() {
        checks.check("cluster_is_described", this::clusterIsDescribed);
        checks.check("topic_is_created_listed_and_described", this::topicIsCreatedListedAndDescribed);
        checks.check("topic_is_described_by_id", this::topicIsDescribedById);
        checks.check("many_topics_are_created_in_one_request", this::manyTopicsInOneRequest);
        checks.check("broker_chooses_default_partitions_and_replication", this::brokerChoosesDefaults);
        checks.check("replica_assignment_can_be_given", this::replicaAssignmentCanBeGiven);
        checks.check("validate_only_creates_nothing", this::validateOnlyCreatesNothing);
        checks.check("existing_topic_is_refused", this::existingTopicIsRefused);
        checks.check("invalid_topic_names_are_refused", this::invalidTopicNamesAreRefused);
        checks.check("invalid_topic_configs_are_refused", this::invalidTopicConfigsAreRefused);
        checks.check("impossible_partition_and_replica_counts_are_refused", this::impossibleCountsAreRefused);
        checks.check("partitions_grow_and_never_shrink", this::partitionsGrowAndNeverShrink);
        checks.check("topic_configs_are_described_with_source_and_default", this::topicConfigsAreDescribed);
        checks.check("topic_configs_change_incrementally", this::topicConfigsChangeIncrementally);
        checks.check("invalid_config_changes_are_refused", this::invalidConfigChangesAreRefused);
        checks.check("broker_configs_are_described", this::brokerConfigsAreDescribed);
        checks.check("configs_of_unknown_topic_are_refused", this::configsOfUnknownTopicAreRefused);
        checks.check("deleted_records_move_the_log_start", this::deletedRecordsMoveTheLogStart);
        checks.check("admin_lists_offsets_by_every_spec", this::adminListsOffsets);
        checks.check("deleted_topic_is_gone_and_can_come_back_empty", this::deletedTopicIsGone);
        checks.check("topic_is_deleted_by_id", this::topicIsDeletedById);
        checks.check("unknown_topic_is_reported", this::unknownTopicIsReported);
    }

    private void clusterIsDescribed() throws Exception {
        DescribeClusterResult result = cluster.admin.describeCluster();
        String port = cluster.bootstrap.substring(cluster.bootstrap.lastIndexOf(':') + 1);
        Collection<Node> nodes = result.nodes().get();
        Checks.that(nodes.stream().anyMatch(node -> port.equals("" + node.port())), "own port among " + nodes);
        Checks.that(!result.clusterId().get().isEmpty(), "cluster id");
        Node controller = result.controller().get();
        Checks.that(nodes.stream().anyMatch(node -> node.id() == controller.id()), "controller is a node");
    }

    private void topicIsCreatedListedAndDescribed() throws Exception {
        String name = cluster.name("create");
        Map<String, String> configs = Map.of(
                "retention.ms", "3600000", "max.message.bytes", "2000000", "cleanup.policy", "delete");
        CreateTopicsResult created =
                cluster.admin.createTopics(List.of(new NewTopic(name, 6, cluster.replicas).configs(configs)));
        Checks.equal(6, created.numPartitions(name).get(), "partitions in the answer");
        Checks.equal((int) cluster.replicas, created.replicationFactor(name).get(), "replication factor in the answer");
        Checks.equal("3600000", created.config(name).get().get("retention.ms").value(), "config in the answer");
        Uuid id = created.topicId(name).get();
        Checks.that(!id.equals(Uuid.ZERO_UUID), "topic id in the answer");

        Checks.eventually("topic is listed", () -> cluster.admin.listTopics().names().get().contains(name));
        TopicDescription topic = describe(name);
        Checks.equal(id, topic.topicId(), "topic id");
        Checks.equal(false, topic.isInternal(), "internal");
        Checks.equal(6, topic.partitions().size(), "partitions");
        for (int p = 0; p < 6; p++) {
            TopicPartitionInfo partition = topic.partitions().get(p);
            Checks.equal(p, partition.partition(), "partition index");
            Checks.that(partition.leader() != null && !partition.leader().isEmpty(), "leader of " + p);
            Checks.equal((int) cluster.replicas, partition.replicas().size(), "replicas of " + p);
            Checks.equal((int) cluster.replicas, partition.isr().size(), "in-sync replicas of " + p);
        }
    }

    private void topicIsDescribedById() throws Exception {
        String name = cluster.topic("by-id", 2);
        Uuid id = describe(name).topicId();
        TopicDescription topic = cluster.admin
                .describeTopics(TopicCollection.ofTopicIds(List.of(id)))
                .allTopicIds()
                .get()
                .get(id);
        Checks.equal(name, topic.name(), "name");
        Checks.equal(2, topic.partitions().size(), "partitions");
    }

    private void manyTopicsInOneRequest() throws Exception {
        List<NewTopic> topics = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            topics.add(new NewTopic(cluster.name("many-" + i), 1 + i % 3, cluster.replicas));
        }
        cluster.admin.createTopics(topics).all().get();
        List<String> names = topics.stream().map(NewTopic::name).toList();
        Checks.eventually(
                "all are listed", () -> cluster.admin.listTopics().names().get().containsAll(names));
        cluster.admin.deleteTopics(names).all().get();
        Checks.eventually("none is listed", () -> {
            HashSet<String> left = new HashSet<>(cluster.admin.listTopics().names().get());
            return !left.removeAll(names);
        });
    }

    private void brokerChoosesDefaults() throws Exception {
        String name = cluster.name("defaults");
        NewTopic topic = new NewTopic(name, Optional.empty(), Optional.empty());
        CreateTopicsResult created = cluster.admin.createTopics(List.of(topic));
        Checks.that(created.numPartitions(name).get() >= 1, "partitions");
        Checks.equal(created.numPartitions(name).get(), describe(name).partitions().size(), "partitions described");
    }

    private void replicaAssignmentCanBeGiven() throws Exception {
        int node = cluster.admin.describeCluster().nodes().get().iterator().next().id();
        String name = cluster.name("assigned");
        NewTopic topic = new NewTopic(name, Map.of(0, List.of(node), 1, List.of(node)));
        cluster.admin.createTopics(List.of(topic)).all().get();
        TopicDescription described = describe(name);
        Checks.equal(2, described.partitions().size(), "partitions");
        Checks.equal(node, described.partitions().get(1).leader().id(), "leader");
    }

    private void validateOnlyCreatesNothing() throws Exception {
        String name = cluster.name("validate-only");
        cluster.admin
                .createTopics(
                        List.of(new NewTopic(name, 1, (short) 1)), new CreateTopicsOptions().validateOnly(true))
                .all()
                .get();
        Checks.fails(UnknownTopicOrPartitionException.class, () -> describeOnce(name));
    }

    private void existingTopicIsRefused() throws Exception {
        String name = cluster.topic("exists", 3);
        Checks.fails(TopicExistsException.class, () -> create(new NewTopic(name, 5, (short) 1)));
        Checks.equal(3, describe(name).partitions().size(), "partitions of the first topic");
    }

    private void invalidTopicNamesAreRefused() throws Exception {
        for (String name : List.of("", ".", "..", "with blank", "slash/inside", "ümlaut", "n".repeat(250))) {
            // The client refuses an empty name by itself; the others reach the broker.
            Checks.fails(InvalidTopicException.class, () -> create(new NewTopic(name, 1, (short) 1)));
        }
    }

    private void invalidTopicConfigsAreRefused() throws Exception {
        for (Map<String, String> configs : List.of(
                Map.of("no.such.config", "1"),
                Map.of("retention.ms", "soon"),
                Map.of("cleanup.policy", "shred"),
                Map.of("max.message.bytes", "-1"))) {
            String name = cluster.name("invalid-config");
            Checks.fails(
                    InvalidConfigurationException.class,
                    () -> create(new NewTopic(name, 1, (short) 1).configs(configs)));
            Checks.fails(UnknownTopicOrPartitionException.class, () -> describeOnce(name));
        }
    }

    private void impossibleCountsAreRefused() throws Exception {
        String name = cluster.name("impossible");
        Checks.fails(InvalidPartitionsException.class, () -> create(new NewTopic(name, 0, (short) 1)));
        Checks.fails(InvalidReplicationFactorException.class, () -> create(new NewTopic(name, 1, (short) 99)));
        Checks.fails(InvalidReplicationFactorException.class, () -> create(new NewTopic(name, 1, (short) 0)));
    }

    private void partitionsGrowAndNeverShrink() throws Exception {
        String name = cluster.topic("grow", 2);
        cluster.admin.createPartitions(Map.of(name, NewPartitions.increaseTo(5))).all().get();
        Checks.eventually("five partitions", () -> describe(name).partitions().size() == 5);
        for (int count : List.of(3, 5)) {
            Checks.fails(InvalidPartitionsException.class, () -> cluster.admin
                    .createPartitions(Map.of(name, NewPartitions.increaseTo(count)))
                    .all()
                    .get());
        }
        Checks.fails(UnknownTopicOrPartitionException.class, () -> cluster.admin
                .createPartitions(Map.of(cluster.name("absent"), NewPartitions.increaseTo(3)))
                .all()
                .get());
        // The new partitions take records.
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            var records = Cluster.records(name, 5, 50, 100);
            Cluster.send(producer, records);
            Cluster.same(records, cluster.read(name, 5, 50));
        }
    }

    private void topicConfigsAreDescribed() throws Exception {
        String name = cluster.topic("configs", 1, Map.of("retention.ms", "7200000"));
        Config config = config(topicResource(name));
        ConfigEntry set = config.get("retention.ms");
        Checks.equal("7200000", set.value(), "retention.ms");
        Checks.equal(ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, set.source(), "source of retention.ms");
        Checks.equal(false, set.isReadOnly(), "retention.ms read-only");
        Checks.equal(false, set.isSensitive(), "retention.ms sensitive");
        for (Map.Entry<String, String> expected : Map.of(
                        "cleanup.policy", "delete",
                        "retention.bytes", "-1",
                        "segment.bytes", "1073741824",
                        "segment.ms", "604800000",
                        "max.message.bytes", "1048588",
                        // As run-all configures a cluster; 1 where a node is alone, which is Kafka's default.
                        "min.insync.replicas", String.valueOf(cluster.replicas / 2 + 1),
                        "compression.type", "producer",
                        "message.timestamp.type", "CreateTime",
                        "message.timestamp.after.max.ms", "3600000")
                .entrySet()) {
            ConfigEntry entry = config.get(expected.getKey());
            Checks.that(entry != null, expected.getKey() + " is described");
            Checks.equal(expected.getValue(), entry.value(), expected.getKey());
            // A default may be the broker's or the cluster's, as long as it is not said to be the topic's own.
            Checks.that(
                    entry.source() != ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG,
                    expected.getKey() + " is said to be set on the topic");
        }
    }

    private void topicConfigsChangeIncrementally() throws Exception {
        String name = cluster.topic("alter", 1, Map.of("retention.ms", "1000000", "max.message.bytes", "5000"));
        ConfigResource resource = topicResource(name);
        alter(resource, "retention.ms", "2000000", SET);
        Checks.eventually("retention.ms changed", () -> "2000000".equals(value(resource, "retention.ms")));
        Checks.equal("5000", value(resource, "max.message.bytes"), "the other config stays");
        // What is appended is in the list already, and what is subtracted is not: the list is the topic's own now.
        alter(resource, "cleanup.policy", "delete", APPEND);
        Checks.eventually("policy is the topic's", () -> !config(resource).get("cleanup.policy").isDefault());
        Checks.equal("delete", value(resource, "cleanup.policy"), "policy after the append");
        alter(resource, "cleanup.policy", "compact", SUBTRACT);
        Checks.equal("delete", value(resource, "cleanup.policy"), "policy after the subtraction");
        alter(resource, "retention.ms", "", DELETE);
        Checks.eventually("retention.ms is the default", () -> config(resource).get("retention.ms").isDefault());
        Checks.equal("604800000", value(resource, "retention.ms"), "default of retention.ms");
        Checks.equal("5000", value(resource, "max.message.bytes"), "the other config still stays");
    }

    private void invalidConfigChangesAreRefused() throws Exception {
        ConfigResource resource = topicResource(cluster.topic("alter-invalid", 1));
        Checks.fails(InvalidConfigurationException.class, () -> alter(resource, "no.such.config", "1", SET));
        Checks.fails(InvalidConfigurationException.class, () -> alter(resource, "retention.ms", "x", SET));
        Checks.fails(InvalidConfigurationException.class, () -> alter(resource, "retention.ms", "1", APPEND));
        Checks.equal("604800000", value(resource, "retention.ms"), "retention.ms is as before");
    }

    private void brokerConfigsAreDescribed() throws Exception {
        int node = cluster.admin.describeCluster().nodes().get().iterator().next().id();
        Config config = config(new ConfigResource(ConfigResource.Type.BROKER, "" + node));
        Checks.that(!config.entries().isEmpty(), "a broker has configs");
        for (ConfigEntry entry : config.entries()) {
            Checks.that(!entry.name().isEmpty(), "config has a name");
            Checks.that(!entry.isSensitive() || entry.value() == null, "sensitive value shown: " + entry.name());
        }
    }

    private void configsOfUnknownTopicAreRefused() throws Exception {
        ConfigResource resource = topicResource(cluster.name("absent"));
        Checks.fails(UnknownTopicOrPartitionException.class, () -> config(resource));
        Checks.fails(UnknownTopicOrPartitionException.class, () -> alter(resource, "retention.ms", "1", SET));
    }

    private void deletedRecordsMoveTheLogStart() throws Exception {
        String name = cluster.topic("delete-records", 1);
        TopicPartition partition = new TopicPartition(name, 0);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer();
                KafkaConsumer<byte[], byte[]> consumer = cluster.consumer()) {
            Cluster.send(producer, Cluster.records(name, 1, 100, 200));
            Checks.equal(30L, deleteRecords(partition, 30), "low watermark");
            Checks.equal(30L, consumer.beginningOffsets(List.of(partition)).get(partition), "beginning offset");
            Checks.equal(100L, consumer.endOffsets(List.of(partition)).get(partition), "end offset");
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            Checks.equal(30L, Cluster.poll(consumer, 70).get(0).offset(), "first record left");
            Checks.equal(30L, deleteRecords(partition, 10), "low watermark never falls");
            Checks.fails(OffsetOutOfRangeException.class, () -> deleteRecords(partition, 101));
            // -1 stands for the high watermark.
            Checks.equal(100L, deleteRecords(partition, -1), "low watermark after deleting all");
            Checks.equal(100L, consumer.beginningOffsets(List.of(partition)).get(partition), "empty log's beginning");
        }
    }

    private void adminListsOffsets() throws Exception {
        String name = cluster.topic("list-offsets", 2);
        TopicPartition partition = new TopicPartition(name, 0);
        TopicPartition empty = new TopicPartition(name, 1);
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            Cluster.send(producer, Timestamps.records(name));
        }
        Checks.equal(0L, offset(partition, OffsetSpec.earliest()), "earliest");
        Checks.equal(5L, offset(partition, OffsetSpec.latest()), "latest");
        Checks.equal(3L, offset(partition, OffsetSpec.maxTimestamp()), "record with the largest timestamp");
        Checks.equal(0L, offset(partition, OffsetSpec.forTimestamp(0)), "time before all");
        Checks.equal(1L, offset(partition, OffsetSpec.forTimestamp(Timestamps.BASE + 1)), "time between");
        Checks.equal(-1L, offset(partition, OffsetSpec.forTimestamp(Timestamps.BASE + 31)), "time after all");
        Checks.equal(0L, offset(empty, OffsetSpec.earliest()), "earliest of an empty partition");
        Checks.equal(0L, offset(empty, OffsetSpec.latest()), "latest of an empty partition");
        Checks.equal(-1L, offset(empty, OffsetSpec.maxTimestamp()), "largest timestamp of an empty partition");
    }

    private void deletedTopicIsGone() throws Exception {
        String name = cluster.topic("delete", 2);
        Uuid first = describe(name).topicId();
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            Cluster.send(producer, Cluster.records(name, 2, 100, 100));
        }
        cluster.admin.deleteTopics(List.of(name)).all().get();
        Checks.eventually("not listed", () -> !cluster.admin.listTopics().names().get().contains(name));
        Checks.fails(UnknownTopicOrPartitionException.class, () -> describeOnce(name));
        Checks.fails(UnknownTopicOrPartitionException.class, () -> cluster.admin
                .deleteTopics(List.of(name))
                .all()
                .get());
        create(new NewTopic(name, 2, cluster.replicas));
        Checks.that(!first.equals(describe(name).topicId()), "a new topic has a new id");
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            var records = Cluster.records(name, 2, 10, 100);
            Cluster.send(producer, records);
            Cluster.same(records, cluster.read(name, 2, 10));
        }
    }

    private void topicIsDeletedById() throws Exception {
        String name = cluster.topic("delete-by-id", 1);
        Uuid id = describe(name).topicId();
        cluster.admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
        Checks.eventually("not listed", () -> !cluster.admin.listTopics().names().get().contains(name));
    }

    private void unknownTopicIsReported() throws Exception {
        String name = cluster.name("absent");
        Checks.fails(UnknownTopicOrPartitionException.class, () -> describeOnce(name));
        Checks.fails(UnknownTopicOrPartitionException.class, () -> cluster.admin
                .deleteTopics(List.of(name))
                .all()
                .get());
    }

    private Void create(NewTopic topic) throws Exception {
        return cluster.admin.createTopics(List.of(topic)).all().get();
    }

    private TopicDescription describeOnce(String name) throws Exception {
        return cluster.admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
    }

    /** A broker may learn of a new topic a moment after its creation was acknowledged. */
    private TopicDescription describe(String name) throws Exception {
        Checks.eventually("topic " + name + " is known", () -> {
            try {
                return describeOnce(name).partitions().stream()
                        .allMatch(p -> p.leader() != null && !p.leader().isEmpty());
            } catch (ExecutionException e) {
                if (e.getCause() instanceof UnknownTopicOrPartitionException) {
                    return false;
                }
                throw e;
            }
        });
        return describeOnce(name);
    }

    private static ConfigResource topicResource(String name) {
        return new ConfigResource(ConfigResource.Type.TOPIC, name);
    }

    private Config config(ConfigResource resource) throws Exception {
        return cluster.admin.describeConfigs(List.of(resource)).all().get().get(resource);
    }

    private String value(ConfigResource resource, String key) throws Exception {
        return config(resource).get(key).value();
    }

    private Void alter(ConfigResource resource, String key, String value, AlterConfigOp.OpType type)
            throws Exception {
        AlterConfigOp op = new AlterConfigOp(new ConfigEntry(key, value), type);
        return cluster.admin
                .incrementalAlterConfigs(Map.of(resource, List.of(op)))
                .all()
                .get();
    }

    private long deleteRecords(TopicPartition partition, long before) throws Exception {
        return cluster.admin
                .deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(before)))
                .lowWatermarks()
                .get(partition)
                .get()
                .lowWatermark();
    }

    private long offset(TopicPartition partition, OffsetSpec spec) throws Exception {
        return cluster.admin.listOffsets(Map.of(partition, spec)).partitionResult(partition).get().offset();
    }
}
