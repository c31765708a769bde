"""librdkafka through confluent-kafka: admin, produce, consume with assigned partitions and in groups."""

import os
import random
import time

from checks import (
    CLOSING,
    COMPACTED,
    TIMES_AFTER_BASE,
    TIMES_BASE,
    Checks,
    Names,
    Record,
    equal,
    eventually,
    keyed_records,
    only_the_newest_stays,
    payload,
    records,
    same,
    that,
    timed_records,
)
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

BOOTSTRAP = os.environ["BOOTSTRAP"]
# Of topics, unless a check is about that.
REPLICAS = int(os.environ.get("REPLICAS", "1"))
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
NAMES = Names("rdkafka")
QUIET = {"bootstrap.servers": BOOTSTRAP, "log_level": 0}
ADMIN = AdminClient(QUIET)
NOT_YET_SERVED = (
    KafkaError._NOENT,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)


# Clients and calls


def producer(**settings):
    config = {"linger.ms": 5, "message.timeout.ms": 15000}
    config.update({key.replace("_", "."): value for key, value in settings.items()})
    return Producer({**QUIET, **config})


def consumer(**settings):
    """Without further settings: CRCs are checked and nothing resets a position silently."""
    config = {
        "group.id": "unused",
        "check.crcs": True,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 50,
    }
    config.update({key.replace("_", "."): value for key, value in settings.items()})
    return Consumer({**QUIET, **config})


def done(futures):
    """The results of an admin call, by what it was about."""
    return {key: future.result(timeout=20) for key, future in futures.items()}


def topic(what, partitions, config=None):
    name = NAMES.name(what)
    done(ADMIN.create_topics([NewTopic(name, partitions, REPLICAS, config=config or {})]))
    eventually(f"leaders of {name} answer", lambda: leaders_answer(name, partitions))
    return name


def leaders_answer(name, partitions):
    """A topic is acknowledged a moment before every node knows of it, and Kafka's leaders serve. A client that has asked
    too early goes by that for seconds: each look is a new client's."""
    admin = AdminClient(QUIET)
    try:
        done(admin.list_offsets({TopicPartition(name, p): OffsetSpec.latest() for p in range(partitions)}))
        return True
    except KafkaException as error:
        that(error.args[0].code() in NOT_YET_SERVED, error)
        return False


def fails(code, call, *arguments):
    try:
        result = call(*arguments)
    except KafkaException as error:
        equal(KafkaError(code).name(), error.args[0].name(), "error code")
        return error.args[0]
    raise AssertionError(f"expected {KafkaError(code).name()}, got the result {result}")


def send(name, to_send, **settings):
    """Sends all, waits for all; the delivered messages in the order of the records."""
    delivered = [None] * len(to_send)

    def remember(index):
        def on_delivery(error, message):
            delivered[index] = (error, message)

        return on_delivery

    client = producer(**settings)
    for index, record in enumerate(to_send):
        while True:
            try:
                client.produce(
                    name,
                    partition=record.partition,
                    key=record.key,
                    value=record.value,
                    headers=record.headers,
                    timestamp=record.timestamp or 0,
                    on_delivery=remember(index),
                )
                break
            except BufferError:
                client.poll(0.1)
    equal(0, client.flush(20), "records not delivered in time")
    for error, _ in delivered:
        if error is not None:
            raise KafkaException(error)
    return [message for _, message in delivered]


def take(client, count, seconds=20):
    """Polls until there are this many records. More than asked for is an error of the broker, and is seen."""
    messages = []
    deadline = time.monotonic() + seconds
    while len(messages) < count and time.monotonic() < deadline:
        for message in client.consume(max(count - len(messages), 1), timeout=0.2):
            if message.error() is not None:
                raise KafkaException(message.error())
            messages.append(message)
    equal(count, len(messages), "records read")
    return messages


def read(name, partitions, count, **settings):
    """Every partition from the beginning, as pairs of offset and record."""
    client = consumer(**settings)
    client.assign([TopicPartition(name, p, OFFSET_BEGINNING) for p in range(partitions)])
    try:
        return [
            (
                message.offset(),
                Record(
                    message.partition(),
                    message.key(),
                    message.value(),
                    message.headers() or [],
                    message.timestamp()[1],
                ),
            )
            for message in take(client, count)
        ]
    finally:
        client.close()


# Admin


def cluster_is_described():
    cluster = ADMIN.describe_cluster().result(timeout=20)
    that(cluster.cluster_id, "cluster id")
    port = int(BOOTSTRAP.rsplit(":", 1)[1])
    that(port in [node.port for node in cluster.nodes], f"own port among {cluster.nodes}")
    that(cluster.controller.id in [node.id for node in cluster.nodes], "controller is a node")


def topic_is_created_listed_and_described():
    name = topic("create", 6, {"retention.ms": "3600000", "cleanup.policy": "delete"})
    listed = ADMIN.list_topics(timeout=15).topics
    that(name in listed, "topic is listed")
    equal(6, len(listed[name].partitions), "partitions listed")
    described = done(ADMIN.describe_topics(TopicCollection([name])))[name]
    that(str(described.topic_id), "topic id")
    equal(list(range(6)), [partition.id for partition in described.partitions], "partitions described")
    for partition in described.partitions:
        that(partition.leader is not None, f"leader of {partition.id}")
        equal(REPLICAS, len(partition.replicas), "replicas")
        equal(REPLICAS, len(partition.isr), "in-sync replicas")


def create(new):
    return done(ADMIN.create_topics([new]))


def existing_topic_is_refused():
    name = topic("exists", 2)
    fails(KafkaError.TOPIC_ALREADY_EXISTS, create, NewTopic(name, 4, 1))


def invalid_topics_are_refused():
    fails(KafkaError.TOPIC_EXCEPTION, create, NewTopic("not a topic", 1, 1))
    fails(KafkaError.TOPIC_EXCEPTION, create, NewTopic("n" * 250, 1, 1))
    fails(KafkaError.INVALID_REPLICATION_FACTOR, create, NewTopic(NAMES.name("invalid"), 1, 99))
    for config in ({"no.such.config": "1"}, {"retention.ms": "soon"}, {"cleanup.policy": "shred"}):
        fails(KafkaError.INVALID_CONFIG, create, NewTopic(NAMES.name("invalid"), 1, 1, config=config))


def validate_only_creates_nothing():
    name = NAMES.name("validate-only")
    done(ADMIN.create_topics([NewTopic(name, 1, 1)], validate_only=True))
    that(name not in ADMIN.list_topics(timeout=15).topics, "topic was created")


def partitions_grow_and_never_shrink():
    name = topic("grow", 2)
    done(ADMIN.create_partitions([NewPartitions(name, 5)]))
    eventually("five partitions", lambda: len(ADMIN.list_topics(name, timeout=15).topics[name].partitions) == 5)
    for count in (3, 5):
        fails(
            KafkaError.INVALID_PARTITIONS,
            lambda count=count: done(ADMIN.create_partitions([NewPartitions(name, count)])),
        )


def describe(resource):
    return done(ADMIN.describe_configs([resource]))[resource]


def alter(resource_name, key, value, operation):
    entry = ConfigEntry(key, value, incremental_operation=operation)
    resource = ConfigResource(ResourceType.TOPIC, resource_name, incremental_configs=[entry])
    return done(ADMIN.incremental_alter_configs([resource]))


def topic_configs_are_described_and_altered():
    name = topic("configs", 1, {"retention.ms": "7200000", "max.message.bytes": "5000"})
    resource = ConfigResource(ResourceType.TOPIC, name)
    configs = describe(resource)
    equal("7200000", configs["retention.ms"].value, "retention.ms")
    equal(ConfigSource.DYNAMIC_TOPIC_CONFIG.value, configs["retention.ms"].source, "source of retention.ms")
    equal("604800000", configs["segment.ms"].value, "segment.ms")
    that(configs["segment.ms"].is_default, "segment.ms is the default")
    alter(name, "retention.ms", "900000", AlterConfigOpType.SET)
    eventually("retention.ms changed", lambda: describe(resource)["retention.ms"].value == "900000")
    alter(name, "cleanup.policy", "delete", AlterConfigOpType.APPEND)
    eventually("policy is the topic's", lambda: not describe(resource)["cleanup.policy"].is_default)
    equal("delete", describe(resource)["cleanup.policy"].value, "policy after the append")
    alter(name, "retention.ms", None, AlterConfigOpType.DELETE)
    eventually("retention.ms is the default", lambda: describe(resource)["retention.ms"].is_default)
    equal("5000", describe(resource)["max.message.bytes"].value, "the other config stays")
    fails(KafkaError.INVALID_CONFIG, alter, name, "no.such.config", "1", AlterConfigOpType.SET)
    fails(KafkaError.UNKNOWN_TOPIC_OR_PART, describe, ConfigResource(ResourceType.TOPIC, NAMES.name("absent")))


def unserved_configs_are_refused_by_name():
    """Of Chronik: a key or value without effect is not accepted. Kafka has all of these."""
    name = topic("unserved", 1)
    for key, value in (("preallocate", "true"), ("index.interval.bytes", "512")):
        new = NewTopic(NAMES.name("unserved-new"), 1, 1, config={key: value})
        for error in (
            fails(KafkaError.INVALID_CONFIG, create, new),
            fails(KafkaError.INVALID_CONFIG, alter, name, key, value, AlterConfigOpType.SET),
        ):
            that(key in error.str(), f"{key} is not named: {error.str()}")
    equal("delete", describe(ConfigResource(ResourceType.TOPIC, name))["cleanup.policy"].value, "policy as before")


def read_to_end(client, name, begin):
    """Offset, key and value of what is read from `begin` on until the partition's end is told."""
    client.assign([TopicPartition(name, 0, begin)])
    found = []
    while True:
        message = client.poll(5)
        that(message is not None, "the end of the partition")
        if message.error() is not None:
            equal(KafkaError._PARTITION_EOF, message.error().code(), "error")
            return found
        found.append((message.offset(), message.key(), message.value()))


def compacted_topic_keeps_the_newest_of_every_key(codec):
    name = topic(f"compact-{codec}", 1, COMPACTED)
    written = keyed_records()
    send(name, written, compression_type=codec)
    end = send(name, CLOSING)[0].offset()
    client = consumer(enable_partition_eof=True, isolation_level="read_committed")

    def read_from(begin):
        return [found for found in read_to_end(client, name, begin) if found[0] < end]

    only_the_newest_stays(written, read_from, lambda: send(name, CLOSING[:1]))
    client.close()
    fails(KafkaError.INVALID_RECORD, send, name, [Record(0, None, b"no key")])


def broker_configs_are_described():
    node = ADMIN.describe_cluster().result(timeout=20).nodes[0].id
    that(describe(ConfigResource(ResourceType.BROKER, str(node))), "a broker has configs")


def delete_records(name, before):
    partition = TopicPartition(name, 0, before)
    return done(ADMIN.delete_records([partition]))[partition].low_watermark


def deleted_records_move_the_log_start():
    name = topic("delete-records", 1)
    send(name, records(1, 100, 200))
    equal(30, delete_records(name, 30), "low watermark")
    client = consumer()
    equal((30, 100), client.get_watermark_offsets(TopicPartition(name, 0), timeout=15), "watermarks")
    client.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    equal(30, take(client, 70)[0].offset(), "first record left")
    client.close()
    fails(KafkaError.OFFSET_OUT_OF_RANGE, delete_records, name, 101)
    equal(100, delete_records(name, OFFSET_END), "low watermark after deleting all")


def list_offset(name, partition, spec, **options):
    key = TopicPartition(name, partition)
    return done(ADMIN.list_offsets({key: spec}, **options))[key].offset


def admin_lists_offsets_by_every_spec():
    name = topic("list-offsets", 2)
    send(name, timed_records())
    equal(0, list_offset(name, 0, OffsetSpec.earliest()), "earliest")
    equal(5, list_offset(name, 0, OffsetSpec.latest()), "latest")
    equal(5, list_offset(name, 0, OffsetSpec.latest(), isolation_level=IsolationLevel.READ_COMMITTED), "last stable")
    equal(3, list_offset(name, 0, OffsetSpec.max_timestamp()), "largest timestamp")
    equal(1, list_offset(name, 0, OffsetSpec.for_timestamp(TIMES_BASE + 1)), "by timestamp")
    equal(0, list_offset(name, 1, OffsetSpec.latest()), "latest of an empty partition")
    equal(-1, list_offset(name, 1, OffsetSpec.max_timestamp()), "largest timestamp of an empty partition")


def delete_topic(name):
    return done(ADMIN.delete_topics([name]))


def deleted_topic_is_gone_and_can_come_back_empty():
    name = topic("delete", 2)
    send(name, records(2, 50, 100))
    delete_topic(name)
    eventually("not listed", lambda: name not in ADMIN.list_topics(timeout=15).topics)
    fails(KafkaError.UNKNOWN_TOPIC_OR_PART, delete_topic, name)
    topic("delete", 2)
    equal(0, list_offset(name, 0, OffsetSpec.latest()), "end of the new topic")


# Produce


def round_trip(codec, acks, idempotent):
    name = topic(f"{codec}-{acks}-{idempotent}", 3)
    sent = records(3, 600, 400)
    delivered = send(name, sent, compression_type=codec, acks=acks, enable_idempotence=idempotent)
    if acks != 0:
        equal([i // 3 for i in range(600)], [message.offset() for message in delivered], "acknowledged offsets")
    same(sent, read(name, 3, len(sent)))


def large_batches(codec):
    name = topic(f"large-{codec}", 2)
    sent = records(2, 60, 60_000)
    sent.append(Record(0, None, payload(random.Random(1), 900 * 1024)))
    sent.append(Record(1, None, bytes(900 * 1024)))
    send(name, sent, compression_type=codec, linger_ms=50, batch_size=900_000)
    same(sent, read(name, 2, len(sent)))


def nulls_are_kept():
    name = topic("nulls", 1)
    sent = [Record(0, key, value) for key in (None, b"", b"\x01\x02") for value in (None, b"", b"\x03")]
    sent.append(Record(0, b"k", b"v", [("same", b"1"), ("same", b""), ("null", None), ("ключ", b"2")]))
    send(name, sent)
    same(sent, read(name, 1, len(sent)))


def many_small_records():
    name = topic("small", 3)
    sent = records(3, 20_000, 40)
    send(name, sent)
    same(sent, read(name, 3, len(sent)))


def idempotent_order_is_kept():
    name = topic("order", 4)
    sent = records(4, 8_000, 100)
    send(
        name,
        sent,
        enable_idempotence=True,
        max_in_flight_requests_per_connection=5,
        batch_num_messages=20,
        linger_ms=0,
    )
    same(sent, read(name, 4, len(sent)))


def too_large_is_refused():
    name = topic("too-large", 1, {"max.message.bytes": "10000"})
    fails(KafkaError.MSG_SIZE_TOO_LARGE, send, name, [Record(0, None, bytes(20_000))])
    equal(0, send(name, [Record(0, None, bytes(5_000))])[0].offset(), "offset of the record that fits")


def create_time_is_kept():
    name = topic("create-time", 1)
    sent = timed_records()
    send(name, sent)
    same(sent, read(name, 1, len(sent)))
    client = consumer()
    client.assign([TopicPartition(name, 0, 0)])
    equal(TIMESTAMP_CREATE_TIME, take(client, 5)[0].timestamp()[0], "timestamp type")
    client.close()


def log_append_time():
    name = topic("append-time", 1, {"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000)
    send(name, timed_records())
    client = consumer()
    client.assign([TopicPartition(name, 0, 0)])
    for message in take(client, 5):
        kind, timestamp = message.timestamp()
        equal(TIMESTAMP_LOG_APPEND_TIME, kind, "timestamp type")
        that(timestamp >= before, "timestamp is the broker's")
    client.close()


def auto_creation():
    name = NAMES.name("auto")
    sent = records(1, 10, 100)
    send(name, sent)
    same(sent, read(name, 1, len(sent)))


def unknown_partition_is_refused():
    name = topic("partition", 2)
    fails(KafkaError._UNKNOWN_PARTITION, send, name, [Record(2, None, b"x")])


# Consume


def start_positions():
    name = topic("positions", 1)
    send(name, records(1, 100, 100))
    partition = TopicPartition(name, 0)
    client = consumer()
    equal((0, 100), client.get_watermark_offsets(partition, timeout=15), "watermarks")
    client.assign([TopicPartition(name, 0, OFFSET_BEGINNING)])
    equal(0, take(client, 100)[0].offset(), "first offset")
    client.assign([TopicPartition(name, 0, 40)])
    equal(40, take(client, 60)[0].offset(), "offset after the seek")
    client.assign([TopicPartition(name, 0, OFFSET_END)])
    # The end is resolved in the background: what comes after it must be sent after that.
    equal([], client.consume(1, timeout=0.5), "records at the end")
    send(name, records(1, 5, 10))
    equal(100, take(client, 5)[0].offset(), "first new offset")
    client.close()


def offsets_for_times():
    name = topic("times", 2)
    for record in timed_records():
        send(name, [record])
    client = consumer()
    for after, expected in ((0, 0), (1, 1), (10, 1), (11, 2), (21, 3), (30, 3)):
        found = client.offsets_for_times([TopicPartition(name, 0, TIMES_BASE + after)], timeout=15)[0]
        equal(expected, found.offset, f"offset for {after} ms, of {TIMES_AFTER_BASE}")
    for partition, after in ((0, 31), (1, 0)):
        found = client.offsets_for_times([TopicPartition(name, partition, TIMES_BASE + after)], timeout=15)[0]
        equal(OFFSET_END, found.offset, "nothing at or after that time")
    client.close()


def out_of_range_is_reported():
    name = topic("range-error", 1)
    send(name, records(1, 50, 100))
    equal(10, delete_records(name, 10), "low watermark")
    for offset in (51, 1_000_000, 9):
        client = consumer()
        client.assign([TopicPartition(name, 0, offset)])
        fails(KafkaError._AUTO_OFFSET_RESET, take, client, 1)
        client.close()


def out_of_range_resets():
    name = topic("range-reset", 1)
    send(name, records(1, 50, 100))
    client = consumer(auto_offset_reset="earliest")
    client.assign([TopicPartition(name, 0, 1_000)])
    equal(0, take(client, 50)[0].offset(), "offset after the reset")
    client.close()


def long_poll_returns():
    name = topic("long-poll", 1)
    client = consumer(fetch_wait_max_ms=25_000, socket_timeout_ms=40_000)
    client.assign([TopicPartition(name, 0, 0)])
    # Sends the fetch, which then stays parked at the broker.
    equal([], client.consume(1, timeout=1), "records before")
    send(name, records(1, 1, 10))
    take(client, 1, seconds=12)
    client.close()


def record_over_fetch_limits():
    name = topic("fetch-limits", 2)
    sent = [Record(i % 2, None, bytes(50_000 + i)) for i in range(10)]
    send(name, sent)
    same(sent, read(name, 2, len(sent), max_partition_fetch_bytes=1_000, fetch_max_bytes=1_000, message_max_bytes=1_000))


def seek_into_batch():
    name = topic("seek", 1)
    send(name, records(1, 1_000, 50), linger_ms=200, compression_type="zstd")
    for offset in (999, 500, 1):
        client = consumer()
        client.assign([TopicPartition(name, 0, offset)])
        equal(offset, take(client, 1_000 - offset)[0].offset(), "first offset")
        client.close()


def read_committed():
    name = topic("committed", 2)
    sent = records(2, 500, 100)
    send(name, sent, enable_idempotence=True)
    same(sent, read(name, 2, len(sent), isolation_level="read_committed"))


def partition_end_is_told():
    name = topic("eof", 1)
    send(name, records(1, 10, 10))
    client = consumer(enable_partition_eof=True)
    client.assign([TopicPartition(name, 0, 0)])
    take(client, 10)
    fails(KafkaError._PARTITION_EOF, take, client, 1)
    client.close()


def unknown_topic_is_reported():
    name = NAMES.name("absent")
    fails(KafkaError.UNKNOWN_TOPIC_OR_PART, lambda: done(ADMIN.describe_topics(TopicCollection([name]))))
    fails(KafkaError._NOENT, list_offset, name, 0, OffsetSpec.latest())
    client = consumer()
    fails(KafkaError._UNKNOWN_PARTITION, client.get_watermark_offsets, TopicPartition(name, 0), 5)
    client.close()
    that(name not in ADMIN.list_topics(timeout=15).topics, "asking created the topic")


# Groups


def member(protocol, group, name, **settings):
    """A consumer of a group that has subscribed."""
    if protocol == "classic":
        settings = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 300, **settings}
    settings = {"group_id": group, "group_protocol": protocol, "auto_offset_reset": "earliest", **settings}
    client = consumer(**settings)
    client.subscribe([name])
    return client


def poll_until(what, members, condition, seconds=25):
    """Has all poll in turn until it is so; the records that came meanwhile."""
    messages = []
    deadline = time.monotonic() + seconds
    while not condition():
        that(time.monotonic() < deadline, f"never happened: {what}")
        for client in members:
            for message in client.consume(100, timeout=0.05):
                if message.error() is not None:
                    raise KafkaException(message.error())
                messages.append(message)
    return messages


def places(client):
    return {(partition.topic, partition.partition) for partition in client.assignment()}


def group_goes_on_where_it_committed(protocol):
    name = topic(f"group-goes-on-{protocol}", 3)
    send(name, records(3, 300, 100))
    client = member(protocol, name, name)
    take(client, 300)
    client.commit(offsets=[TopicPartition(name, p, 100, "kept") for p in range(3)], asynchronous=False)
    client.close()
    send(name, records(3, 30, 100))
    client = member(protocol, name, name)
    that(all(message.offset() >= 100 for message in take(client, 30)), "nothing is read again")
    committed = client.committed([TopicPartition(name, 0)], timeout=15)[0]
    equal((100, "kept"), (committed.offset, committed.metadata), "committed")
    client.close()


def group_shares_with_a_second_member(protocol):
    name = topic(f"group-shares-{protocol}", 4)
    first = member(protocol, name, name)
    poll_until("all are with the first", [first], lambda: len(places(first)) == 4)
    second = member(protocol, name, name)
    both = [first, second]
    poll_until("both have two", both, lambda: [len(places(one)) for one in both] == [2, 2])
    equal(4, len(places(first) | places(second)), "partitions of both")
    second.close()
    poll_until("all are with the first again", [first], lambda: len(places(first)) == 4)
    first.close()


def group_static_member_comes_back(protocol):
    name = topic(f"group-static-{protocol}", 2)
    first = member(protocol, name, name, group_instance_id="one")
    second = member(protocol, name, name, group_instance_id="two")
    both = [first, second]
    poll_until("both have one", both, lambda: [len(places(one)) for one in both] == [1, 1])
    had = places(second)
    second.close()
    again = member(protocol, name, name, group_instance_id="two")
    poll_until("it has its part", [first, again], lambda: len(places(again)) == 1)
    equal((had, 1), (places(again), len(places(first))), "what they have")
    again.close()
    first.close()


def group_cooperative_keeps_what_stays():
    name = topic("group-cooperative", 4)
    revoked = []
    strategy = {"partition_assignment_strategy": "cooperative-sticky"}
    first = member("classic", name, name, **strategy)
    first.subscribe([name], on_revoke=lambda _, partitions: revoked.extend(partitions))
    poll_until("all are with the first", [first], lambda: len(places(first)) == 4)
    second = member("classic", name, name, **strategy)
    both = [first, second]
    poll_until("both have two", both, lambda: [len(places(one)) for one in both] == [2, 2])
    equal(2, len(revoked), "revoked from the first")
    second.close()
    first.close()


def group_is_administered(protocol):
    name = topic(f"group-admin-{protocol}", 2)
    client = member(protocol, name, name)
    poll_until("it has its partitions", [client], lambda: len(places(client)) == 2)
    client.commit(offsets=[TopicPartition(name, 0, 5)], asynchronous=False)
    described = done(ADMIN.describe_consumer_groups([name]))[name]
    equal(("STABLE", 1), (described.state.name, len(described.members)), "state and members")
    listed = ADMIN.list_consumer_groups().result(timeout=20).valid
    that(name in [group.group_id for group in listed], "the group is listed")
    fails(KafkaError.NON_EMPTY_GROUP, lambda: done(ADMIN.delete_consumer_groups([name])))
    client.close()
    eventually("it is empty", lambda: done(ADMIN.describe_consumer_groups([name]))[name].state.name == "EMPTY")
    changed = ConsumerGroupTopicPartitions(name, [TopicPartition(name, 0, 77)])
    done(ADMIN.alter_consumer_group_offsets([changed]))
    found = done(ADMIN.list_consumer_group_offsets([ConsumerGroupTopicPartitions(name)]))[name]
    equal([(0, 77)], [(one.partition, one.offset) for one in found.topic_partitions], "offsets")
    done(ADMIN.delete_consumer_groups([name]))
    fails(KafkaError.GROUP_ID_NOT_FOUND, lambda: done(ADMIN.delete_consumer_groups([name])))


def main():
    checks = Checks()
    checks.check("cluster_is_described", cluster_is_described)
    checks.check("topic_is_created_listed_and_described", topic_is_created_listed_and_described)
    checks.check("existing_topic_is_refused", existing_topic_is_refused)
    checks.check("invalid_topics_are_refused", invalid_topics_are_refused)
    checks.check("validate_only_creates_nothing", validate_only_creates_nothing)
    checks.check("partitions_grow_and_never_shrink", partitions_grow_and_never_shrink)
    checks.check("topic_configs_are_described_and_altered", topic_configs_are_described_and_altered)
    if os.environ.get("BROKER") == "chronik":
        checks.check("unserved_configs_are_refused_by_name", unserved_configs_are_refused_by_name)
    checks.check("broker_configs_are_described", broker_configs_are_described)
    for codec in CODECS:
        check = f"compacted_topic_keeps_the_newest_of_every_key_{codec}"
        checks.check(check, compacted_topic_keeps_the_newest_of_every_key, codec)
    checks.check("deleted_records_move_the_log_start", deleted_records_move_the_log_start)
    checks.check("admin_lists_offsets_by_every_spec", admin_lists_offsets_by_every_spec)
    checks.check("deleted_topic_is_gone_and_can_come_back_empty", deleted_topic_is_gone_and_can_come_back_empty)
    for codec in CODECS:
        for acks in (0, 1, "all"):
            checks.check(f"codec_{codec}_acks_{acks}", round_trip, codec, acks, False)
        checks.check(f"codec_{codec}_idempotent", round_trip, codec, "all", True)
        checks.check(f"codec_{codec}_large_batches", large_batches, codec)
    checks.check("null_and_empty_keys_values_and_headers_are_kept", nulls_are_kept)
    checks.check("many_small_records_over_three_partitions", many_small_records)
    checks.check("idempotent_order_is_kept_with_five_in_flight", idempotent_order_is_kept)
    checks.check("record_over_max_message_bytes_is_refused", too_large_is_refused)
    checks.check("create_time_is_kept", create_time_is_kept)
    checks.check("log_append_time_replaces_the_clients", log_append_time)
    checks.check("producer_creates_a_missing_topic", auto_creation)
    checks.check("unknown_partition_is_refused", unknown_partition_is_refused)
    checks.check("consume_from_earliest_latest_and_offset", start_positions)
    checks.check("offsets_for_times_find_the_first_record_not_earlier", offsets_for_times)
    checks.check("out_of_range_is_reported_without_reset_policy", out_of_range_is_reported)
    checks.check("out_of_range_resets_to_the_policys_end", out_of_range_resets)
    checks.check("long_poll_returns_when_a_record_arrives", long_poll_returns)
    checks.check("record_over_fetch_limits_is_still_read", record_over_fetch_limits)
    checks.check("seek_into_the_middle_of_a_batch", seek_into_batch)
    checks.check("read_committed_reads_to_the_end", read_committed)
    checks.check("partition_end_is_told", partition_end_is_told)
    checks.check("unknown_topic_is_reported", unknown_topic_is_reported)
    for protocol in ("classic", "consumer"):
        checks.check(f"group_{protocol}_goes_on_where_it_committed", group_goes_on_where_it_committed, protocol)
        checks.check(f"group_{protocol}_shares_with_a_second_member", group_shares_with_a_second_member, protocol)
        checks.check(f"group_{protocol}_static_member_comes_back", group_static_member_comes_back, protocol)
        checks.check(f"group_{protocol}_is_administered", group_is_administered, protocol)
    checks.check("group_classic_cooperative_keeps_what_stays", group_cooperative_keeps_what_stays)
    checks.finish()


main()
