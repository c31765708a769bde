import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.BooleanSupplier;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;

/** Consumer groups by both protocols: subscriptions, rebalances, commits, static members, and their administration. */
final class GroupChecks {
    private static final List<String> PROTOCOLS = List.of("classic", "consumer");

    private final Checks checks;
    private final Cluster cluster;

    GroupChecks(Checks checks, Cluster cluster) {
        this.checks = checks;
        this.cluster = cluster;
    }

    void run() {
        for (String protocol : PROTOCOLS) {
            checks.check("group_" + protocol + "_goes_on_where_it_committed", () -> goesOn(protocol));
            checks.check("group_" + protocol + "_shares_with_a_second_member", () -> shares(protocol));
            checks.check("group_" + protocol + "_grows_with_its_topic", () -> growsWithTopic(protocol));
            checks.check("group_" + protocol + "_static_member_comes_back", () -> staticMember(protocol));
            checks.check("group_" + protocol + "_subscribes_by_pattern", () -> pattern(protocol));
            checks.check("group_" + protocol + "_three_members_read_everything", () -> threeMembers(protocol));
            checks.check("group_" + protocol + "_is_administered", () -> administration(protocol));
        }
        checks.check("group_classic_gives_up_a_silent_member", this::silentMember);
        checks.check("group_classic_cooperative_keeps_what_stays", this::cooperative);
        checks.check("group_has_times_of_its_own", this::ownTimes);
        checks.check("group_changes_its_protocol_while_it_is_empty", this::changesProtocol);
        checks.check("group_changes_its_protocol_member_by_member_and_back", () -> rolls("range"));
        checks.check("group_changes_its_protocol_cooperatively_and_back", () -> rolls("cooperative"));
        checks.check("group_of_static_members_changes_its_protocol_and_back", () -> rolls("static"));
    }

    private KafkaConsumer<byte[], byte[]> member(String protocol, String group, String... settings) {
        List<String> all = new ArrayList<>(List.of("group.protocol", protocol, "group.id", group, "auto.offset.reset",
                "earliest", "metadata.max.age.ms", "1000"));
        if (protocol.equals("classic")) {
            all.addAll(List.of("heartbeat.interval.ms", "300", "session.timeout.ms", "6000"));
        }
        all.addAll(List.of(settings));
        return cluster.consumer(all.toArray(String[]::new));
    }

    private void fill(String topic, int partitions, int count) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = cluster.producer()) {
            Cluster.send(producer, Cluster.records(topic, partitions, count, 100));
        }
    }

    /** Lets all poll in turn until it is so; what they read meanwhile. */
    private static List<ConsumerRecord<byte[], byte[]>> until(
            String what, Collection<KafkaConsumer<byte[], byte[]>> members, BooleanSupplier condition) {
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        long deadline = System.nanoTime() + Duration.ofSeconds(25).toNanos();
        while (!condition.getAsBoolean()) {
            Checks.that(System.nanoTime() < deadline, "never happened: " + what);
            for (KafkaConsumer<byte[], byte[]> member : members) {
                member.poll(Duration.ofMillis(50)).forEach(got::add);
            }
        }
        return got;
    }

    private void goesOn(String protocol) throws Exception {
        String topic = cluster.topic("group-goes-on-" + protocol, 3);
        String group = topic + "-group";
        fill(topic, 3, 300);
        try (KafkaConsumer<byte[], byte[]> consumer = member(protocol, group)) {
            consumer.subscribe(List.of(topic));
            Cluster.poll(consumer, 300);
            consumer.commitSync();
        }
        fill(topic, 3, 30);
        try (KafkaConsumer<byte[], byte[]> consumer = member(protocol, group)) {
            consumer.subscribe(List.of(topic));
            for (ConsumerRecord<byte[], byte[]> record : Cluster.poll(consumer, 30)) {
                Checks.that(record.offset() >= 100, "read again: " + record.offset());
            }
            TopicPartition first = new TopicPartition(topic, 0);
            consumer.commitSync(Map.of(first, new OffsetAndMetadata(7, "by hand")));
            OffsetAndMetadata committed = consumer.committed(Set.of(first)).get(first);
            Checks.equal(7L, committed.offset(), "committed");
            Checks.equal("by hand", committed.metadata(), "metadata");
        }
    }

    private void shares(String protocol) throws Exception {
        String topic = cluster.topic("group-shares-" + protocol, 4);
        String group = topic + "-group";
        try (KafkaConsumer<byte[], byte[]> first = member(protocol, group)) {
            first.subscribe(List.of(topic));
            until("all are with the first", List.of(first), () -> first.assignment().size() == 4);
            try (KafkaConsumer<byte[], byte[]> second = member(protocol, group)) {
                second.subscribe(List.of(topic));
                until("both have two", List.of(first, second),
                        () -> first.assignment().size() == 2 && second.assignment().size() == 2);
                Set<TopicPartition> all = new HashSet<>(first.assignment());
                all.addAll(second.assignment());
                Checks.equal(4, all.size(), "partitions of both");
                Checks.equal(group, second.groupMetadata().groupId(), "group");
            }
            long left = System.nanoTime();
            until("all are with the first again", List.of(first), () -> first.assignment().size() == 4);
            long millis = (System.nanoTime() - left) / 1_000_000;
            // Members of the next-generation protocol learn of it with their heartbeat, every five seconds.
            Checks.that(millis < (protocol.equals("classic") ? 3000 : 9000), "it took " + millis + " ms");
        }
    }

    private void growsWithTopic(String protocol) throws Exception {
        String topic = cluster.topic("group-grows-" + protocol, 1);
        try (KafkaConsumer<byte[], byte[]> consumer = member(protocol, topic + "-group")) {
            consumer.subscribe(List.of(topic));
            until("one partition", List.of(consumer), () -> consumer.assignment().size() == 1);
            cluster.admin.createPartitions(
                            Map.of(topic, NewPartitions.increaseTo(3)))
                    .all()
                    .get();
            until("three partitions", List.of(consumer), () -> consumer.assignment().size() == 3);
        }
    }

    private void staticMember(String protocol) throws Exception {
        String topic = cluster.topic("group-static-" + protocol, 2);
        String group = topic + "-group";
        List<TopicPartition> revoked = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> first = member(protocol, group, "group.instance.id", "one")) {
            first.subscribe(List.of(topic));
            until("all are with the first", List.of(first), () -> first.assignment().size() == 2);
            KafkaConsumer<byte[], byte[]> second = member(protocol, group, "group.instance.id", "two");
            second.subscribe(List.of(topic));
            until("both have one", List.of(first, second),
                    () -> first.assignment().size() == 1 && second.assignment().size() == 1);
            Set<TopicPartition> had = second.assignment();
            second.close();
            first.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    revoked.addAll(partitions);
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}
            });
            try (KafkaConsumer<byte[], byte[]> again = member(protocol, group, "group.instance.id", "two")) {
                again.subscribe(List.of(topic));
                until("the second has its part", List.of(first, again), () -> again.assignment().size() == 1);
                Checks.equal(had, again.assignment(), "what it has");
                Checks.equal(List.of(), revoked, "revoked from the first");
            }
        }
    }

    private void pattern(String protocol) throws Exception {
        String name = "group-pattern-" + protocol;
        String first = cluster.topic(name + "-a", 1);
        cluster.topic(name + "x", 1);
        String prefix = cluster.name(name) + "-";
        try (KafkaConsumer<byte[], byte[]> consumer = member(protocol, first + "-group")) {
            if (protocol.equals("consumer")) {
                consumer.subscribe(new SubscriptionPattern(prefix + ".*"));
            } else {
                consumer.subscribe(Pattern.compile(prefix + ".*"));
            }
            until("one topic", List.of(consumer),
                    () -> consumer.assignment().equals(Set.of(new TopicPartition(first, 0))));
            String second = cluster.topic(name + "-b", 1);
            until("two topics", List.of(consumer), () -> consumer.assignment()
                    .equals(Set.of(new TopicPartition(first, 0), new TopicPartition(second, 0))));
        }
    }

    private void threeMembers(String protocol) throws Exception {
        String topic = cluster.topic("group-three-" + protocol, 6);
        String group = topic + "-group";
        fill(topic, 6, 600);
        List<KafkaConsumer<byte[], byte[]>> members = new ArrayList<>();
        Set<String> seen = new HashSet<>();
        try {
            for (int i = 0; i < 3; i++) {
                KafkaConsumer<byte[], byte[]> member = member(protocol, group, "max.poll.records", "20");
                member.subscribe(List.of(topic));
                members.add(member);
                note(seen, until("something", members, () -> member.assignment().size() > 0));
            }
            long deadline = System.nanoTime() + Duration.ofSeconds(15).toNanos();
            while (seen.size() < 600 && System.nanoTime() < deadline) {
                note(seen, until("a poll", members, new BooleanSupplier() {
                    private int looks;

                    @Override
                    public boolean getAsBoolean() {
                        return looks++ > 0;
                    }
                }));
            }
            Checks.equal(600, seen.size(), "records read");
        } finally {
            members.forEach(KafkaConsumer::close);
        }
    }

    private static void note(Set<String> seen, List<ConsumerRecord<byte[], byte[]>> records) {
        records.forEach(record -> seen.add(record.partition() + "@" + record.offset()));
    }

    private void silentMember() throws Exception {
        String topic = cluster.topic("group-silent", 2);
        String group = topic + "-group";
        try (KafkaConsumer<byte[], byte[]> first = member("classic", group)) {
            first.subscribe(List.of(topic));
            KafkaConsumer<byte[], byte[]> second = member("classic", group);
            second.subscribe(List.of(topic));
            until("both have one", List.of(first, second),
                    () -> first.assignment().size() == 1 && second.assignment().size() == 1);
            // It goes without a word.
            second.close(CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP));
            until("all are with the first", List.of(first), () -> first.assignment().size() == 2);
        }
    }

    private void cooperative() throws Exception {
        String topic = cluster.topic("group-cooperative", 4);
        String group = topic + "-group";
        String[] cooperative = {"partition.assignment.strategy", CooperativeStickyAssignor.class.getName()};
        List<TopicPartition> revoked = new ArrayList<>();
        try (KafkaConsumer<byte[], byte[]> first = member("classic", group, cooperative)) {
            first.subscribe(List.of(topic), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                    revoked.addAll(partitions);
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> partitions) {}
            });
            until("all are with the first", List.of(first), () -> first.assignment().size() == 4);
            try (KafkaConsumer<byte[], byte[]> second = member("classic", group, cooperative)) {
                second.subscribe(List.of(topic));
                until("both have two", List.of(first, second),
                        () -> first.assignment().size() == 2 && second.assignment().size() == 2);
                Checks.equal(2, revoked.size(), "revoked from the first");
                Checks.equal(second.assignment(), new HashSet<>(revoked), "what the second has");
            }
        }
    }

    private void changesProtocol() throws Exception {
        String topic = cluster.topic("group-changes", 1);
        String group = topic + "-group";
        fill(topic, 1, 30);
        int offset = 0;
        for (String protocol : List.of("classic", "consumer", "classic")) {
            try (KafkaConsumer<byte[], byte[]> consumer = member(protocol, group, "max.poll.records", "10")) {
                consumer.subscribe(List.of(topic));
                List<ConsumerRecord<byte[], byte[]>> got = Cluster.poll(consumer, 10);
                Checks.equal((long) offset, got.get(0).offset(), "first offset by " + protocol);
                offset += got.size();
                consumer.commitSync(Map.of(new TopicPartition(topic, 0), new OffsetAndMetadata(offset)));
            }
        }
    }

    /** Members change from classic to consumer, one after the other, and back: nothing is skipped, nobody shares a partition. */
    private void rolls(String kind) throws Exception {
        int partitions = 6;
        String topic = cluster.topic("group-rolls-" + kind, partitions);
        String group = topic + "-group";
        Set<String> seen = new HashSet<>();
        List<KafkaConsumer<byte[], byte[]>> members = new ArrayList<>();
        int sent = 0;
        try {
            for (int at = 0; at < 3; at++) {
                members.add(rolling(kind, "classic", group, topic, at));
            }
            note(seen, until("three classic members share", members, () -> share(members, partitions)));
            Checks.equal(GroupType.CLASSIC, typeOf(group), "type before");
            for (String protocol : List.of("consumer", "classic")) {
                for (int at = 0; at < 3; at++) {
                    fill(topic, partitions, 60);
                    sent += 60;
                    members.remove(0).close();
                    members.add(rolling(kind, protocol, group, topic, at));
                    String step = "three members share with " + (at + 1) + " of protocol " + protocol;
                    note(seen, until(step, members, () -> share(members, partitions)));
                    boolean allClassic = protocol.equals("classic") && at == 2;
                    Checks.equal(allClassic ? GroupType.CLASSIC : GroupType.CONSUMER, typeOf(group), step);
                }
            }
            int expected = sent;
            note(seen, until("everything is read", members, new BooleanSupplier() {
                private int left = 40;

                @Override
                public boolean getAsBoolean() {
                    return left-- == 0;
                }
            }));
            Checks.equal(expected, seen.size(), "records seen");
        } finally {
            members.forEach(KafkaConsumer::close);
        }
    }

    private KafkaConsumer<byte[], byte[]> rolling(String kind, String protocol, String group, String topic, int at) {
        List<String> settings = new ArrayList<>();
        if (kind.equals("static")) {
            settings.addAll(List.of("group.instance.id", "member-" + at));
        }
        if (kind.equals("cooperative") && protocol.equals("classic")) {
            settings.addAll(List.of("partition.assignment.strategy", CooperativeStickyAssignor.class.getName()));
        }
        KafkaConsumer<byte[], byte[]> member = member(protocol, group, settings.toArray(String[]::new));
        member.subscribe(List.of(topic));
        return member;
    }

    private GroupType typeOf(String group) throws Exception {
        for (GroupListing listing : cluster.admin.listGroups().all().get()) {
            if (listing.groupId().equals(group)) {
                return listing.type().orElseThrow();
            }
        }
        throw new AssertionError("the group is not listed");
    }

    /** Whether each has some, and every partition is with one. */
    private static boolean share(List<KafkaConsumer<byte[], byte[]>> members, int partitions) {
        Set<TopicPartition> all = new HashSet<>();
        int count = 0;
        for (KafkaConsumer<byte[], byte[]> member : members) {
            count += member.assignment().size();
            all.addAll(member.assignment());
            if (member.assignment().isEmpty()) {
                return false;
            }
        }
        return count == partitions && all.size() == partitions;
    }

    private void ownTimes() throws Exception {
        ConfigResource group = new ConfigResource(ConfigResource.Type.GROUP, cluster.name("group-times"));
        ConfigEntry session = new ConfigEntry("consumer.session.timeout.ms", "50000");
        cluster.admin
                .incrementalAlterConfigs(Map.of(group, List.of(new AlterConfigOp(session, AlterConfigOp.OpType.SET))))
                .all()
                .get();
        Checks.eventually("it is described", () -> {
            ConfigEntry found = cluster.admin.describeConfigs(List.of(group)).all().get().get(group).get(session.name());
            return found.value().equals("50000") && found.source() == ConfigEntry.ConfigSource.DYNAMIC_GROUP_CONFIG;
        });
    }

    private void administration(String protocol) throws Exception {
        String topic = cluster.topic("group-admin-" + protocol, 2);
        String other = cluster.topic("group-admin-other-" + protocol, 1);
        String group = topic + "-group";
        TopicPartition partition = new TopicPartition(topic, 0);
        TopicPartition foreign = new TopicPartition(other, 0);
        try (KafkaConsumer<byte[], byte[]> consumer = member(protocol, group, "client.id", "the-client")) {
            consumer.subscribe(List.of(topic));
            until("both partitions", List.of(consumer), () -> consumer.assignment().size() == 2);
            consumer.commitSync(Map.of(partition, new OffsetAndMetadata(5), foreign, new OffsetAndMetadata(6)));
            ConsumerGroupDescription described = cluster.admin
                    .describeConsumerGroups(List.of(group))
                    .describedGroups()
                    .get(group)
                    .get();
            Checks.equal(GroupState.STABLE, described.groupState(), "state");
            Checks.equal(GroupType.parse(protocol), described.type(), "type");
            Checks.equal(1, described.members().size(), "members");
            described.members().forEach(member -> {
                Checks.equal("the-client", member.clientId(), "client id");
                Checks.equal("/127.0.0.1", member.host(), "host");
                Checks.equal(consumer.assignment(), member.assignment().topicPartitions(), "assignment");
            });
            Checks.that(described.coordinator() != null, "a coordinator");
            Checks.equal(Set.of(group), listed(group, ListGroupsOptions.forConsumerGroups()), "listed");
            Checks.equal(Set.of(), listed(group, new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))),
                    "listed as empty");
            Checks.fails(GroupNotEmptyException.class,
                    () -> cluster.admin.deleteConsumerGroups(List.of(group)).all().get());
            Checks.fails(GroupSubscribedToTopicException.class, () -> cluster.admin
                    .deleteConsumerGroupOffsets(group, Set.of(partition))
                    .partitionResult(partition)
                    .get());
            cluster.admin.deleteConsumerGroupOffsets(group, Set.of(foreign)).all().get();
            Checks.equal(Set.of(partition), offsets(group).keySet(), "partitions with offsets");
            if (protocol.equals("classic")) {
                RemoveMembersFromConsumerGroupOptions all = new RemoveMembersFromConsumerGroupOptions();
                cluster.admin.removeMembersFromConsumerGroup(group, all).all().get();
            }
        }
        Checks.eventually("the group is empty", () -> cluster.admin
                .describeConsumerGroups(List.of(group))
                .describedGroups()
                .get(group)
                .get()
                .groupState() == GroupState.EMPTY);
        cluster.admin
                .alterConsumerGroupOffsets(group, Map.of(partition, new OffsetAndMetadata(77)))
                .all()
                .get();
        Checks.equal(77L, offsets(group).get(partition).offset(), "altered offset");
        cluster.admin.deleteConsumerGroups(List.of(group)).all().get();
        Checks.equal(Map.of(), offsets(group), "offsets of a group that is gone");
        Checks.fails(GroupIdNotFoundException.class,
                () -> cluster.admin.deleteConsumerGroups(List.of(group)).all().get());
    }

    private Set<String> listed(String group, ListGroupsOptions options) throws Exception {
        Set<String> found = new HashSet<>();
        for (GroupListing listing : cluster.admin.listGroups(options).all().get()) {
            if (listing.groupId().equals(group)) {
                found.add(listing.groupId());
            }
        }
        return found;
    }

    private Map<TopicPartition, OffsetAndMetadata> offsets(String group) throws Exception {
        return cluster.admin
                .listConsumerGroupOffsets(group)
                .partitionsToOffsetAndMetadata()
                .get();
    }
}
