"""A client that takes whatever is asked of it to a broker, and what comes back as fields to compare."""

import contextlib
import re
import time

from wire import (
    ALTER_CONFIGS,
    CREATE_PARTITIONS,
    CREATE_TOPICS,
    DELETE_RECORDS,
    DELETE_TOPICS,
    DESCRIBE_CLUSTER,
    DESCRIBE_CONFIGS,
    DESCRIBE_LOG_DIRS,
    DESCRIBE_TOPIC_PARTITIONS,
    FETCH,
    INCREMENTAL_ALTER_CONFIGS,
    INIT_PRODUCER_ID,
    LIST_CONFIG_RESOURCES,
    LIST_OFFSETS,
    METADATA,
    NO_TAGS,
    OFFSET_FOR_LEADER_EPOCH,
    PRODUCE,
    Connection,
    Reader,
    array,
    compact_array,
    compact_text,
    frame,
    i8,
    i16,
    i32,
    i64,
    text,
)

TOPIC, BROKER = 2, 4
COORDINATOR_LOAD_IN_PROGRESS = 14


class Client:
    """Requests to one broker; what comes back of each that is worth comparing."""

    def __init__(self, address, prefix):
        self._address = address
        self.prefix = prefix
        self._topics = 0
        self._connection = None

    def call(self, api, version, body, flexible=False):
        return Reader(self.raw(frame(api, version, body, flexible)))

    def raw(self, request, length=None):
        """Each request on a connection of its own, except within `one_connection`."""
        if self._connection is not None:
            return self._connection.exchange(request, length)
        with Connection(self._address) as connection:
            return connection.exchange(request, length)

    @contextlib.contextmanager
    def one_connection(self):
        with Connection(self._address) as self._connection:
            try:
                yield
            finally:
                self._connection = None

    # Topics

    def fresh(self):
        self._topics += 1
        return f"{self.prefix}-{self._topics}"

    def plain(self, name):
        """A name as it can be compared with the other broker's."""
        return name and re.sub(f"{self.prefix}-[0-9]+", "(topic)", name)

    def topic(self, partitions=1, configs=()):
        """A new topic whose leaders answer."""
        name = self.fresh()
        assert self.create(name, partitions, configs=configs) == {"error": 0}, name
        deadline = time.monotonic() + 15
        while any(self.list_offsets(name, -1, p)["error"] for p in range(partitions)):
            assert time.monotonic() < deadline, f"leaders of {name} do not answer"
            time.sleep(0.01)
        return name

    def create(self, *args, **options):
        return self.create_all([new_topic(*args, **options)])[0]

    def create_all(self, topics, validate_only=False):
        response = self.call(CREATE_TOPICS, 4, array(topics) + i32(10_000) + i8(validate_only))
        response.i32()
        results = response.array(lambda: (response.text(), response.i16(), response.text()))
        return [{"error": error} for _, error, _ in results]

    def grow(self, name, count, assignments=None, validate_only=False):
        return self.grow_all([growth(name, count, assignments)], validate_only)[0]

    def grow_all(self, topics, validate_only=False):
        response = self.call(CREATE_PARTITIONS, 1, array(topics) + i32(10_000) + i8(validate_only))
        response.i32()
        results = response.array(lambda: (response.text(), response.i16(), response.text()))
        return [{"error": error} for _, error, _ in results]

    def delete(self, *names):
        response = self.call(DELETE_TOPICS, 3, array([text(name) for name in names]) + i32(10_000))
        response.i32()
        return [error for _, error in response.array(lambda: (response.text(), response.i16()))]

    def delete_by(self, name, topic_id):
        body = compact_array([compact_text(name) + topic_id + NO_TAGS]) + i32(10_000) + NO_TAGS
        response = self.call(DELETE_TOPICS, 6, body, flexible=True)
        response.tags()
        response.i32()
        one = response.compact_array(lambda: (response.compact_text(), response.take(16), response.i16()))
        return {"error": one[0][2], "name": one[0][0] == name}

    # Records

    def produce(self, name, records, acks=-1, partition=0, transactional_id=None):
        data = i32(partition) + i32(len(records)) + records
        body = text(transactional_id) + i16(acks) + i32(10_000) + array([text(name) + array([data])])
        response = self.call(PRODUCE, 7, body)
        response.i32()
        response.text()
        response.i32()
        response.i32()
        error, offset, time_ms, log_start = response.i16(), response.i64(), response.i64(), response.i64()
        if error:
            # The log start is told with some errors and not with others; no client looks at it then.
            return {"error": error, "offset": offset}
        return {"error": error, "offset": offset, "append_time": time_ms >= 0, "log_start": log_start}

    def fetch(self, name, offset, partition=0, epoch=-1, bytes_max=1 << 20, session=(0, -1), bytes_all=1 << 20):
        asked = [i32(partition) + i32(epoch) + i64(offset) + i64(-1) + i32(bytes_max)]
        topics = [] if name is None else [text(name) + array(asked)]
        body = i32(-1) + i32(100) + i32(1) + i32(bytes_all) + i8(0) + i32(session[0]) + i32(session[1])
        response = self.call(FETCH, 11, body + array(topics) + array([]) + text(""))
        response.i32()
        answer = {"session_error": response.i16(), "session": response.i32()}

        def one():
            fields = {"partition": response.i32(), "error": response.i16()}
            fields["high_watermark"], fields["last_stable"] = response.i64(), response.i64()
            fields["log_start"] = response.i64()
            aborted = response.array(lambda: (response.i64(), response.i64()))
            fields["aborted"], fields["preferred"] = aborted, response.i32()
            fields["bytes"] = len(response.take(max(response.i32(), 0)))
            return fields

        topics = response.array(lambda: (response.text(), response.array(one)))
        answer["partitions"] = [partition for _, partitions in topics for partition in partitions]
        return answer

    def list_offsets(self, name, timestamp, partition=0, epoch=-1):
        asked = i32(partition) + i32(epoch) + i64(timestamp)
        body = i32(-1) + i8(0) + array([text(name) + array([asked])])
        response = self.call(LIST_OFFSETS, 5, body)
        response.take(8)
        response.text()
        response.take(8)
        return listed(response)

    def list_offsets_9(self, name, timestamp):
        asked = i32(0) + i32(-1) + i64(timestamp) + NO_TAGS
        topics = compact_array([compact_text(name) + compact_array([asked]) + NO_TAGS])
        response = self.call(LIST_OFFSETS, 9, i32(-1) + i8(0) + topics + NO_TAGS, flexible=True)
        response.tags()
        response.i32()
        response.unsigned()
        response.compact_text()
        response.unsigned()
        response.i32()
        return listed(response)

    def end(self, name, partition=0):
        return self.list_offsets(name, -1, partition)["offset"]

    def delete_records(self, name, before, partition=0):
        asked = text(name) + array([i32(partition) + i64(before)])
        response = self.call(DELETE_RECORDS, 1, array([asked]) + i32(10_000))
        response.take(8)
        response.text()
        response.take(8)
        return {"low": response.i64(), "error": response.i16()}

    def epoch_end(self, name, epoch, current=-1, partition=0):
        asked = text(name) + array([i32(partition) + i32(current) + i32(epoch)])
        response = self.call(OFFSET_FOR_LEADER_EPOCH, 3, i32(-1) + array([asked]))
        response.take(8)
        response.text()
        response.i32()
        error = response.i16()
        response.i32()
        return {"error": error, "epoch": response.i32(), "end": response.i64()}

    def producer_id(self, transactional_id=None, timeout_ms=60_000):
        deadline = time.monotonic() + 15
        while True:
            response = self.call(INIT_PRODUCER_ID, 1, text(transactional_id) + i32(timeout_ms))
            response.i32()
            error = response.i16()
            # A broker that was just started has to be asked again.
            if error != COORDINATOR_LOAD_IN_PROGRESS or time.monotonic() > deadline:
                return {"error": error, "id": response.i64() >= 0, "epoch": response.i16()}
            time.sleep(0.01)

    # Configuration

    def describe_configs(self, kind, name, keys=None):
        asked = i8(kind) + text(name) + array(None if keys is None else [text(key) for key in keys])
        response = self.call(DESCRIBE_CONFIGS, 3, array([asked]) + i8(0) + i8(0))
        response.take(8)
        error = response.i16()
        response.text()
        response.i8()
        response.text()

        def config():
            name, value = response.text(), response.text()
            read_only, source, sensitive = response.i8(), response.i8(), response.i8()
            response.array(lambda: (response.text(), response.text(), response.i8()))
            kind = response.i8()
            response.text()
            return name, (value, read_only, source, sensitive, kind)

        return {"error": error, "configs": dict(response.array(config))}

    def alter_configs(self, kind, name, configs, validate_only=False):
        changes = array([text(key) + text(value) for key, value in configs])
        body = array([i8(kind) + text(name) + changes]) + i8(validate_only)
        return self._altered(ALTER_CONFIGS, 1, body)

    def change_configs(self, kind, name, changes, validate_only=False):
        """Incrementally: changes are key, operation, value."""
        encoded = array([text(key) + i8(operation) + text(value) for key, operation, value in changes])
        return self._altered(INCREMENTAL_ALTER_CONFIGS, 0, array([i8(kind) + text(name) + encoded]) + i8(validate_only))

    def _altered(self, api, version, body):
        response = self.call(api, version, body)
        response.take(8)
        return {"error": response.i16()}

    def changed(self, changes):
        """The answer to changes of a topic that overrides retention.ms, and what is in force afterwards."""
        name = self.topic(configs=[("retention.ms", "1000")])
        answer = self.change_configs(TOPIC, name, changes)
        keys = ["retention.ms", "cleanup.policy"]
        # Brokers follow the metadata log in its order: one that serves a later topic has seen the change.
        self.topic()
        return {**answer, **{key: self.describe_configs(TOPIC, name, [key])["configs"].get(key) for key in keys}}

    # The cluster

    def metadata(self, *names, auto=False):
        body = array([text(name) for name in names]) + i8(auto) + i8(0) + i8(0)
        response = self.call(METADATA, 8, body)
        response.i32()
        response.array(lambda: (response.i32(), response.text(), response.i32(), response.text()))
        response.text()
        response.i32()

        def partition():
            return {
                "error": response.i16(),
                "index": response.i32(),
                "leader": response.i32(),
                "epoch": response.i32(),
                "replicas": response.array(response.i32),
                "in_sync": response.array(response.i32),
                "offline": response.array(response.i32),
            }

        def topic():
            fields = {"error": response.i16(), "name": self.plain(response.text()), "internal": response.i8()}
            fields["partitions"] = sorted(response.array(partition), key=lambda one: one["index"])
            fields["operations"] = response.i32()
            return fields

        return response.array(topic)

    def topic_id(self, name):
        body = compact_array([compact_text(name) + NO_TAGS]) + i32(1) + i8(-1) + NO_TAGS
        response = self.call(DESCRIBE_TOPIC_PARTITIONS, 0, body, flexible=True)
        response.tags()
        response.i32()
        response.unsigned()
        response.i16()
        response.compact_text()
        return response.take(16)

    def metadata_by_id(self, topic_id, name=None):
        topics = compact_array([topic_id + compact_text(name) + NO_TAGS])
        response = self.call(METADATA, 12, topics + i8(0) + i8(0) + NO_TAGS, flexible=True)
        response.tags()
        response.i32()
        response.compact_array(
            lambda: (response.i32(), response.compact_text(), response.i32(), response.compact_text(), response.tags())
        )
        response.compact_text()
        response.i32()
        response.unsigned()
        return {
            "error": response.i16(),
            "name": self.plain(response.compact_text()),
            "id": response.take(16) == topic_id,
        }

    def describe_cluster(self, endpoint_type):
        response = self.call(DESCRIBE_CLUSTER, 1, i8(0) + i8(endpoint_type) + NO_TAGS, flexible=True)
        response.tags()
        response.i32()
        return {"error": response.i16()}

    def describe_partitions(self, names, limit=2000, cursor=None):
        topics = compact_array([compact_text(name) + NO_TAGS for name in names])
        encoded = i8(-1) if cursor is None else i8(1) + compact_text(cursor[0]) + i32(cursor[1]) + NO_TAGS
        body = topics + i32(limit) + encoded + NO_TAGS
        response = self.call(DESCRIBE_TOPIC_PARTITIONS, 0, body, flexible=True)
        response.tags()
        response.i32()

        def partition():
            fields = {
                "error": response.i16(),
                "index": response.i32(),
                "leader": response.i32(),
                "epoch": response.i32(),
            }
            for nodes in ("replicas", "in_sync", "eligible", "last_known", "offline"):
                fields[nodes] = response.compact_array(response.i32)
            response.tags()
            return fields

        def topic():
            fields = {
                "error": response.i16(),
                "name": self.plain(response.compact_text()),
                "id": response.take(16) != bytes(16),
            }
            fields["internal"] = response.i8()
            fields["partitions"] = response.compact_array(partition)
            fields["operations"] = response.i32()
            response.tags()
            return fields

        answer = {"topics": response.compact_array(topic), "cursor": None}
        if response.i8() >= 0:
            answer["cursor"] = (self.plain(response.compact_text()), response.i32())
        return answer

    def log_dirs(self, topics):
        body = array(None if topics is None else [text(name) + array([i32(p) for p in ps]) for name, ps in topics])
        response = self.call(DESCRIBE_LOG_DIRS, 1, body)
        response.i32()

        def partition():
            fields = {"index": response.i32(), "size": response.i64(), "lag": response.i64(), "future": response.i8()}
            return fields

        directories = response.array(
            lambda: (
                response.i16(),
                response.text(),
                response.array(lambda: (self.plain(response.text()), response.array(partition))),
            )
        )
        # Kafka gives partitions in no order.
        return [(error, [(name, sorted(found, key=str)) for name, found in topics]) for error, _, topics in directories]

    def resources(self, *kinds):
        body = compact_array([i8(kind) for kind in kinds]) + NO_TAGS
        response = self.call(LIST_CONFIG_RESOURCES, 1, body, flexible=True)
        response.tags()
        response.i32()
        error = response.i16()
        listed = response.compact_array(lambda: (response.compact_text(), response.i8(), response.tags()))
        return {"error": error, "kinds": sorted({kind for _, kind, _ in listed})}


def listed(response):
    fields = {"error": response.i16(), "timestamp": response.i64(), "offset": response.i64()}
    return {**fields, "epoch": response.i32()}


def new_topic(name, partitions=1, replicas=1, assignments=(), configs=()):
    assigned = array([i32(index) + array([i32(node) for node in nodes]) for index, nodes in assignments])
    return text(name) + i32(partitions) + i16(replicas) + assigned + array([text(k) + text(v) for k, v in configs])


def growth(name, count, assignments=None):
    assigned = None if assignments is None else [array([i32(node) for node in nodes]) for nodes in assignments]
    return text(name) + i32(count) + array(assigned)
