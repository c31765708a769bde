"""kafka-python: admin, produce, consume with assigned partitions and in groups."""

import logging
import os
import random
import threading
import time

from checks import (
    CLOSING,
    COMPACTED,
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
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka import errors
from kafka.admin import AlterConfigOp, ConfigResource, OffsetSpec

logging.disable(logging.CRITICAL)

BOOTSTRAP = os.environ["BOOTSTRAP"]
# Of topics, unless a check is about that.
REPLICAS = int(os.environ.get("REPLICAS", "1"))
CODECS = [None, "gzip", "snappy", "lz4", "zstd"]
NAMES = Names("kpython")
ADMIN = KafkaAdminClient(bootstrap_servers=BOOTSTRAP)
NOT_YET_SERVED = (errors.UnknownTopicOrPartitionError, errors.NotLeaderForPartitionError, errors.UnknownLeaderEpochError)


# Clients and calls


def producer(**settings):
    return KafkaProducer(**{"bootstrap_servers": BOOTSTRAP, "linger_ms": 5, "delivery_timeout_ms": 31000, **settings})


def consumer(**settings):
    """Without further settings: CRCs are checked and nothing resets a position silently."""
    config = {
        "bootstrap_servers": BOOTSTRAP,
        "check_crcs": True,
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "allow_auto_create_topics": False,
        "fetch_max_wait_ms": 50,
    }
    return KafkaConsumer(**{**config, **settings})


def create(name, partitions=1, replicas=REPLICAS, configs=None, **options):
    topic_options = {"num_partitions": partitions, "replication_factor": replicas, "configs": configs or {}}
    return ADMIN.create_topics({name: topic_options}, **options)


def topic(what, partitions, configs=None):
    name = NAMES.name(what)
    create(name, partitions, configs=configs)
    eventually(f"leaders of {name} answer", lambda: leaders_answer(name, partitions))
    return name


def leaders_answer(name, partitions):
    """Kafka acknowledges a topic a moment before its leaders serve."""
    try:
        ADMIN.list_partition_offsets({TopicPartition(name, p): OffsetSpec.LATEST for p in range(partitions)})
        return True
    except NOT_YET_SERVED:
        return False


def fails(expected, call, *arguments, **options):
    try:
        result = call(*arguments, **options)
    except expected as error:
        return error
    except errors.KafkaError as error:
        raise AssertionError(f"expected {expected.__name__}, got {error!r}") from error
    raise AssertionError(f"expected {expected.__name__}, got the result {result}")


def send(name, to_send, **settings):
    """Sends all, waits for all; the metadata in the order of the records."""
    client = producer(**settings)
    try:
        sent = [
            client.send(
                name,
                partition=record.partition,
                key=record.key,
                value=record.value,
                headers=record.headers,
                timestamp_ms=record.timestamp,
            )
            for record in to_send
        ]
        client.flush(timeout=20)
        return [future.get(timeout=20) for future in sent]
    finally:
        client.close(timeout=5)


def take(client, count, seconds=20):
    """Polls until there are this many records. More than asked for is an error of the broker, and is seen."""
    messages = []
    deadline = time.monotonic() + seconds
    while len(messages) < count and time.monotonic() < deadline:
        for batch in client.poll(timeout_ms=200, max_records=5_000).values():
            messages.extend(batch)
    equal(count, len(messages), "records read")
    return messages


def assigned(name, partitions, **settings):
    client = consumer(**settings)
    client.assign([TopicPartition(name, p) for p in range(partitions)])
    return client


def read(name, partitions, count, **settings):
    """Every partition from the beginning, as pairs of offset and record."""
    client = assigned(name, partitions, **settings)
    client.seek_to_beginning()
    messages = take(client, count)
    client.close()
    return [
        (message.offset, Record(message.partition, message.key, message.value, message.headers, message.timestamp))
        for message in messages
    ]


# Admin


def cluster_is_described():
    cluster = ADMIN.describe_cluster()
    that(cluster["cluster_id"], "cluster id")
    port = int(BOOTSTRAP.rsplit(":", 1)[1])
    that(port in [broker["port"] for broker in cluster["brokers"]], "own port among the brokers")
    that(cluster["controller_id"] in [broker["broker_id"] for broker in cluster["brokers"]], "controller is a node")


def topic_is_created_listed_and_described():
    name = topic("create", 6, {"retention.ms": "3600000", "cleanup.policy": "delete"})
    that(name in ADMIN.list_topics(), "topic is listed")
    described = ADMIN.describe_topics([name])[0]
    equal(name, described["name"], "name")
    equal(list(range(6)), sorted(p["partition_index"] for p in described["partitions"]), "partitions")
    for partition in described["partitions"]:
        that(partition["leader_id"] >= 0, "leader")
        equal(REPLICAS, len(partition["isr_nodes"]), "in-sync replicas")


def wrong_topics_are_refused():
    name = topic("exists", 2)
    fails(errors.TopicAlreadyExistsError, create, name)
    fails(errors.InvalidTopicError, create, "not a topic")
    absent = NAMES.name("invalid")
    fails(errors.InvalidReplicationFactorError, create, absent, replicas=99)
    fails(errors.InvalidPartitionsError, create, absent, partitions=0)
    for configs in ({"no.such.config": "1"}, {"retention.ms": "soon"}, {"cleanup.policy": "shred"}):
        fails(errors.InvalidConfigurationError, create, absent, configs=configs)
    create(absent, validate_only=True)
    that(absent not in ADMIN.list_topics(), "validate_only created a topic")


def partitions_grow_and_never_shrink():
    name = topic("grow", 2)
    ADMIN.create_partitions({name: 5})
    eventually("five partitions", lambda: len(ADMIN.describe_topics([name])[0]["partitions"]) == 5)
    fails(errors.InvalidPartitionsError, ADMIN.create_partitions, {name: 3})
    fails(errors.InvalidPartitionsError, ADMIN.create_partitions, {name: 5})


def describe(name):
    return ADMIN.describe_configs([ConfigResource("TOPIC", name)], config_filter="all")["topic"][name]


def alter(name, key, operation, value):
    resource = ConfigResource("TOPIC", name, {key: (operation, value)})
    return ADMIN.alter_configs([resource], raise_on_unknown=False)["topic"][name]


def topic_configs_are_described_and_altered():
    name = topic("configs", 1, {"retention.ms": "7200000", "max.message.bytes": "5000"})
    configs = describe(name)
    equal("7200000", configs["retention.ms"]["value"], "retention.ms")
    equal("DYNAMIC_TOPIC_CONFIG", configs["retention.ms"]["config_source"], "source of retention.ms")
    equal("LONG", configs["retention.ms"]["config_type"], "type of retention.ms")
    equal("604800000", configs["segment.ms"]["value"], "segment.ms")
    equal("DEFAULT_CONFIG", configs["segment.ms"]["config_source"], "source of segment.ms")
    equal("OK", alter(name, "retention.ms", AlterConfigOp.SET, "900000"), "set")
    eventually("retention.ms changed", lambda: describe(name)["retention.ms"]["value"] == "900000")
    equal("OK", alter(name, "cleanup.policy", AlterConfigOp.APPEND, "delete"), "append")
    eventually(
        "policy is the topic's",
        lambda: describe(name)["cleanup.policy"]["config_source"] == "DYNAMIC_TOPIC_CONFIG",
    )
    equal("delete", describe(name)["cleanup.policy"]["value"], "policy after the append")
    equal("OK", alter(name, "retention.ms", AlterConfigOp.DELETE, None), "delete")
    eventually("default again", lambda: describe(name)["retention.ms"]["config_source"] == "DEFAULT_CONFIG")
    equal("5000", describe(name)["max.message.bytes"]["value"], "the other config stays")
    that("40" in alter(name, "no.such.config", AlterConfigOp.SET, "1"), "an unknown key is INVALID_CONFIG (40)")


def delete_records(name, before):
    partition = TopicPartition(name, 0)
    return ADMIN.delete_records({partition: before})[partition]["low_watermark"]


def deleted_records_move_the_log_start():
    name = topic("delete-records", 1)
    partition = TopicPartition(name, 0)
    send(name, records(1, 100, 200))
    equal(30, delete_records(name, 30), "low watermark")
    client = assigned(name, 1)
    equal({partition: 30}, client.beginning_offsets([partition]), "beginning")
    client.seek_to_beginning()
    equal(30, take(client, 70)[0].offset, "first record left")
    client.close()
    fails(errors.KafkaError, delete_records, name, 101)
    equal(100, delete_records(name, -1), "low watermark after deleting all")


def read_to_end(client, partition, begin):
    """Offset, key and value of what is read from `begin` on until the position is the partition's end."""
    client.seek(partition, begin)
    end = client.end_offsets([partition])[partition]
    messages = []
    deadline = time.monotonic() + 15
    while client.position(partition) < end:
        that(time.monotonic() < deadline, "the end is read")
        for batch in client.poll(timeout_ms=200, max_records=5_000).values():
            messages.extend((message.offset, message.key, message.value) for message in batch)
    return messages


def compacted_topic_keeps_the_newest_of_every_key(codec):
    name = topic(f"compact-{codec}", 1, COMPACTED)
    written = keyed_records()
    send(name, written, compression_type=codec)
    end = send(name, CLOSING)[0].offset
    client = assigned(name, 1, isolation_level="read_committed")

    def read_from(begin):
        return [found for found in read_to_end(client, TopicPartition(name, 0), begin) if found[0] < end]

    only_the_newest_stays(written, read_from, lambda: send(name, CLOSING[:1]))
    client.close()


def list_offset(name, partition, spec):
    key = TopicPartition(name, partition)
    return ADMIN.list_partition_offsets({key: spec})[key].offset


def admin_lists_offsets_by_every_spec():
    name = topic("list-offsets", 2)
    send(name, timed_records())
    equal(0, list_offset(name, 0, OffsetSpec.EARLIEST), "earliest")
    equal(5, list_offset(name, 0, OffsetSpec.LATEST), "latest")
    equal(3, list_offset(name, 0, OffsetSpec.MAX_TIMESTAMP), "largest timestamp")
    equal(1, list_offset(name, 0, TIMES_BASE + 1), "by timestamp")
    equal(-1, list_offset(name, 1, OffsetSpec.MAX_TIMESTAMP), "largest timestamp of an empty partition")


def deleted_topic_is_gone_and_can_come_back_empty():
    name = topic("delete", 2)
    send(name, records(2, 50, 100))
    ADMIN.delete_topics([name])
    eventually("not listed", lambda: name not in ADMIN.list_topics())
    fails(errors.UnknownTopicOrPartitionError, ADMIN.delete_topics, [name])
    topic("delete", 2)
    equal(0, list_offset(name, 0, OffsetSpec.LATEST), "end of the new topic")


# Produce


def round_trip(codec, acks, idempotent):
    name = topic(f"{codec}-{acks}-{idempotent}", 3)
    sent = records(3, 600, 400)
    metadata = send(name, sent, compression_type=codec, acks=acks, enable_idempotence=idempotent)
    if acks != 0:
        equal([i // 3 for i in range(600)], [one.offset for one in metadata], "acknowledged offsets")
    same(sent, read(name, 3, len(sent)))


def large_batches(codec):
    name = topic(f"large-{codec}", 2)
    sent = records(2, 60, 60_000)
    sent.append(Record(0, None, payload(random.Random(1), 900 * 1024)))
    sent.append(Record(1, None, bytes(900 * 1024)))
    send(name, sent, compression_type=codec, linger_ms=50, batch_size=500_000)
    same(sent, read(name, 2, len(sent)))


def nulls_are_kept():
    name = topic("nulls", 1)
    # The client refuses a record with neither key nor value, so one pair is not sent.
    pairs = [(key, value) for key in (None, b"", b"\x01\x02") for value in (None, b"", b"\x03")]
    sent = [Record(0, key, value) for key, value in pairs if (key, value) != (None, None)]
    sent.append(Record(0, b"k", b"v", [("same", b"1"), ("same", b""), ("ключ", b"2")]))
    send(name, sent)
    same(sent, read(name, 1, len(sent)))


def many_small_records():
    name = topic("small", 3)
    sent = records(3, 20_000, 40)
    send(name, sent)
    same(sent, read(name, 3, len(sent)))


def idempotent_order_is_kept():
    name = topic("order", 4)
    sent = records(4, 4_000, 100)
    send(name, sent, enable_idempotence=True, batch_size=1_000, linger_ms=0)
    same(sent, read(name, 4, len(sent)))


def too_large_is_refused():
    name = topic("too-large", 1, {"max.message.bytes": "10000"})
    fails(errors.MessageSizeTooLargeError, send, name, [Record(0, None, bytes(20_000))])
    equal(0, send(name, [Record(0, None, bytes(5_000))])[0].offset, "offset of the record that fits")


def create_time_is_kept():
    name = topic("create-time", 1)
    sent = timed_records()
    send(name, sent)
    same(sent, read(name, 1, len(sent)))


def log_append_time():
    name = topic("append-time", 1, {"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000)
    send(name, timed_records())
    client = assigned(name, 1)
    client.seek_to_beginning()
    for message in take(client, 5):
        equal(1, message.timestamp_type, "timestamp type")
        that(message.timestamp >= before, "timestamp is the broker's")
    client.close()


def auto_creation():
    name = NAMES.name("auto")
    sent = records(1, 10, 100)
    send(name, sent)
    same(sent, read(name, 1, len(sent)))


# Consume


def start_positions():
    name = topic("positions", 1)
    partition = TopicPartition(name, 0)
    send(name, records(1, 100, 100))
    client = assigned(name, 1)
    equal({partition: 0}, client.beginning_offsets([partition]), "beginning")
    equal({partition: 100}, client.end_offsets([partition]), "end")
    client.seek_to_beginning()
    equal(0, take(client, 100)[0].offset, "first offset")
    client.seek(partition, 40)
    equal(40, take(client, 60)[0].offset, "offset after the seek")
    client.seek_to_end()
    equal(100, client.position(partition), "position of the end")
    send(name, records(1, 5, 10))
    equal(100, take(client, 5)[0].offset, "first new offset")
    client.close()


def offsets_for_times():
    name = topic("times", 2)
    for record in timed_records():
        send(name, [record])
    client = consumer()
    partition = TopicPartition(name, 0)
    for after, expected in ((0, 0), (1, 1), (10, 1), (11, 2), (21, 3), (30, 3)):
        found = client.offsets_for_times({partition: TIMES_BASE + after})[partition]
        equal(expected, found.offset, f"offset for {after} ms")
    equal(None, client.offsets_for_times({partition: TIMES_BASE + 31})[partition], "nothing at or after that time")
    empty = TopicPartition(name, 1)
    equal(None, client.offsets_for_times({empty: TIMES_BASE})[empty], "offset in an empty partition")
    client.close()


def out_of_range_is_reported():
    name = topic("range-error", 1)
    partition = TopicPartition(name, 0)
    send(name, records(1, 50, 100))
    equal(10, delete_records(name, 10), "low watermark")
    client = assigned(name, 1)
    for offset in (51, 1_000_000, 9):
        client.seek(partition, offset)
        fails(errors.OffsetOutOfRangeError, take, client, 1)
    client.close()


def out_of_range_resets():
    name = topic("range-reset", 1)
    send(name, records(1, 50, 100))
    client = assigned(name, 1, auto_offset_reset="earliest")
    client.seek(TopicPartition(name, 0), 1_000)
    equal(0, take(client, 50)[0].offset, "offset after the reset")
    client.close()


def long_poll_returns():
    name = topic("long-poll", 1)
    client = assigned(name, 1, fetch_max_wait_ms=25_000)
    client.seek(TopicPartition(name, 0), 0)
    # Sends the fetch, which then stays parked at the broker.
    equal({}, client.poll(timeout_ms=500), "records before")
    send(name, records(1, 1, 10))
    take(client, 1, seconds=12)
    client.close(timeout_ms=0)


def seek_into_batch():
    name = topic("seek", 1)
    send(name, records(1, 1_000, 50), linger_ms=200, batch_size=500_000, compression_type="zstd")
    client = assigned(name, 1)
    for offset in (999, 500, 1):
        client.seek(TopicPartition(name, 0), offset)
        equal(offset, take(client, 1_000 - offset)[0].offset, "first offset")
    client.close()


def record_over_fetch_limits():
    name = topic("fetch-limits", 2)
    sent = [Record(i % 2, None, bytes(50_000 + i)) for i in range(10)]
    send(name, sent)
    same(sent, read(name, 2, len(sent), max_partition_fetch_bytes=1_000, fetch_max_bytes=1_000))


def read_committed():
    name = topic("committed", 2)
    sent = records(2, 500, 100)
    send(name, sent)
    same(sent, read(name, 2, len(sent), isolation_level="read_committed"))


def unknown_topic_is_reported():
    name = NAMES.name("absent")
    client = consumer()
    that(not client.partitions_for_topic(name), "partitions of an unknown topic")
    fails(errors.UnknownTopicOrPartitionError, list_offset, name, 0, OffsetSpec.LATEST)
    that(name not in client.topics(), "asking created the topic")
    client.close()


# Groups


def member(group, name, **settings):
    """A consumer of a group that has subscribed."""
    times = {"session_timeout_ms": 6_000, "heartbeat_interval_ms": 300, "metadata_max_age_ms": 1_000}
    client = consumer(group_id=group, auto_offset_reset="earliest", **{**times, **settings})
    client.subscribe([name])
    return client


def poll_until(what, members, condition, seconds=25):
    """Has all poll in turn until it is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        that(time.monotonic() < deadline, f"never happened: {what}")
        for client in members:
            client.poll(timeout_ms=50)


def group_goes_on_where_it_committed():
    name = topic("group-goes-on", 3)
    send(name, records(3, 300, 100))
    client = member(name, name)
    take(client, 300)
    client.commit()
    client.close()
    send(name, records(3, 30, 100))
    client = member(name, name)
    that(all(message.offset >= 100 for message in take(client, 30)), "nothing is read again")
    equal(100, client.committed(TopicPartition(name, 0)), "committed")
    client.close()


def group_shares_with_a_second_member():
    name = topic("group-shares", 4)
    first = member(name, name)
    poll_until("all are with the first", [first], lambda: len(first.assignment()) == 4)
    second = member(name, name)
    both = [first, second]
    # While one of them waits for the other in a poll, that one must poll, too.
    threads = [threading.Thread(target=keep_polling, args=(one, both), daemon=True) for one in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(25)
    equal([2, 2], [len(one.assignment()) for one in both], "partitions of each")
    equal(4, len(first.assignment() | second.assignment()), "partitions of both")
    second.close()
    poll_until("all are with the first again", [first], lambda: len(first.assignment()) == 4)
    first.close()


def keep_polling(client, members):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and [len(one.assignment()) for one in members] != [2, 2]:
        client.poll(timeout_ms=50)


def group_is_administered():
    name = topic("group-admin", 2)
    client = member(name, name)
    poll_until("it has its partitions", [client], lambda: len(client.assignment()) == 2)
    client.commit({TopicPartition(name, 0): OffsetAndMetadata(5, "kept", -1)})
    listed = str(ADMIN.list_groups())
    that(name in listed, f"the group is listed in {listed:.200}")
    described = str(ADMIN.describe_groups([name]))
    that("Stable" in described and "/127.0.0.1" in described, f"{described:.500}")
    client.close()
    offsets = str(ADMIN.list_group_offsets({name: None}))
    that("kept" in offsets, f"{offsets:.300}")
    ADMIN.delete_groups([name])
    that(name not in str(ADMIN.list_groups()), "the group is gone")


def main():
    checks = Checks()
    checks.check("cluster_is_described", cluster_is_described)
    checks.check("topic_is_created_listed_and_described", topic_is_created_listed_and_described)
    checks.check("wrong_topics_are_refused", wrong_topics_are_refused)
    checks.check("partitions_grow_and_never_shrink", partitions_grow_and_never_shrink)
    checks.check("topic_configs_are_described_and_altered", topic_configs_are_described_and_altered)
    for codec in CODECS:
        check = f"compacted_topic_keeps_the_newest_of_every_key_{codec or 'none'}"
        checks.check(check, compacted_topic_keeps_the_newest_of_every_key, codec)
    checks.check("deleted_records_move_the_log_start", deleted_records_move_the_log_start)
    checks.check("admin_lists_offsets_by_every_spec", admin_lists_offsets_by_every_spec)
    checks.check("deleted_topic_is_gone_and_can_come_back_empty", deleted_topic_is_gone_and_can_come_back_empty)
    for codec in CODECS:
        for acks in (0, 1, "all"):
            checks.check(f"codec_{codec or 'none'}_acks_{acks}", round_trip, codec, acks, False)
        checks.check(f"codec_{codec or 'none'}_idempotent", round_trip, codec, "all", True)
        checks.check(f"codec_{codec or 'none'}_large_batches", large_batches, codec)
    checks.check("null_and_empty_keys_values_and_headers_are_kept", nulls_are_kept)
    checks.check("many_small_records_over_three_partitions", many_small_records)
    checks.check("idempotent_order_is_kept_with_five_in_flight", idempotent_order_is_kept)
    checks.check("record_over_max_message_bytes_is_refused", too_large_is_refused)
    checks.check("create_time_is_kept", create_time_is_kept)
    checks.check("log_append_time_replaces_the_clients", log_append_time)
    checks.check("producer_creates_a_missing_topic", auto_creation)
    checks.check("consume_from_earliest_latest_and_offset", start_positions)
    checks.check("offsets_for_times_find_the_first_record_not_earlier", offsets_for_times)
    checks.check("out_of_range_is_reported_without_reset_policy", out_of_range_is_reported)
    checks.check("out_of_range_resets_to_the_policys_end", out_of_range_resets)
    checks.check("long_poll_returns_when_a_record_arrives", long_poll_returns)
    checks.check("record_over_fetch_limits_is_still_read", record_over_fetch_limits)
    checks.check("seek_into_the_middle_of_a_batch", seek_into_batch)
    checks.check("read_committed_reads_to_the_end", read_committed)
    checks.check("unknown_topic_is_reported", unknown_topic_is_reported)
    checks.check("group_goes_on_where_it_committed", group_goes_on_where_it_committed)
    checks.check("group_shares_with_a_second_member", group_shares_with_a_second_member)
    checks.check("group_is_administered", group_is_administered)
    checks.finish()


main()
