"""Requests at the edge of what is allowed. Both nodes have id 1.

Every probe that writes has a topic of its own, so that no probe depends on another.
"""

import time
import uuid

import groups
from client import BROKER, TOPIC, growth, new_topic
from wire import (
    API_VERSIONS,
    CODECS,
    FETCH,
    LIST_OFFSETS,
    METADATA,
    NO_TAGS,
    PRODUCE,
    RECORD,
    SECOND_RECORD,
    array,
    batch,
    compact_text,
    frame,
    i8,
    i16,
    i32,
)

NOW = int(time.time() * 1000)
HOUR_MS = 3_600_000


# Probes by name: a function of a client to something comparable.
PROBES = {}


def probe(name, run):
    assert name not in PROBES, name
    PROBES[name] = run


def validated(client):
    name = client.fresh()
    return client.create_all([new_topic(name)], validate_only=True), client.metadata(name)[0]["error"]


def creations():
    def refused(name, *args, **options):
        probe(f"create: {name}", lambda c: c.create(c.fresh(), *args, **options))

    for name, named in {
        "a blank in the name": "a b",
        "no name": "",
        "name ..": "..",
        "name .": ".",
        "a slash in the name": "a/b",
        "name of 250": "n" * 250,
    }.items():
        probe(f"create: {name}", lambda c, named=named: c.create(named))
    probe("create: name of 249", lambda c: c.create(c.prefix + "n" * (249 - len(c.prefix))))
    probe("create: exists", lambda c: c.create(c.topic()))
    probe(
        "create: collides . and _",
        lambda c: [c.create(n) for n in (f"{c.prefix}.x_y", f"{c.prefix}_x.y", f"{c.prefix}.x.y")],
    )
    probe("create: twice in a request", lambda c: c.create_all([new_topic(c.fresh())] * 2))
    probe("create: only validated", validated)
    probe("create: none", lambda c: c.create_all([]))
    for partitions in (0, -1, -2):
        refused(f"{partitions} partitions", partitions)
    for replicas in (99, 0, -1, -2):
        refused(f"{replicas} replicas", 1, replicas)
    for name, assignments in {
        "assignment": [(0, [1])],
        "assignment to an unknown node": [(0, [9])],
        "assignment names a node twice": [(0, [1, 1])],
        "assignment of no node": [(0, [])],
        "assignment leaves out a partition": [(1, [1])],
        "assignment of one partition twice": [(0, [1]), (0, [1])],
        "assignment of a negative partition": [(-1, [1])],
    }.items():
        refused(name, -1, -1, assignments)
    refused("assignment and counts", 1, 1, [(0, [1])])
    refused("assignment and partitions", 1, -1, [(0, [1])])
    for name, config in {
        "unknown config": ("no.such", "1"),
        "config that is no number": ("retention.ms", "x"),
        "empty config": ("retention.ms", ""),
        "config null": ("retention.ms", None),
        "config with blanks": ("retention.ms", " 1000 "),
        "config too low": ("segment.ms", "0"),
        "config too high": ("segment.bytes", "2147483648"),
        "retention.ms -2": ("retention.ms", "-2"),
        "segment.bytes 1": ("segment.bytes", "1"),
        "segment.bytes 1000": ("segment.bytes", "1000"),
        "min.insync.replicas 0": ("min.insync.replicas", "0"),
        "min.insync.replicas over the factor": ("min.insync.replicas", "3"),
        "cleanup.policy unknown": ("cleanup.policy", "shred"),
        "cleanup.policy empty": ("cleanup.policy", ""),
        "cleanup.policy twice delete": ("cleanup.policy", "delete,delete"),
        "cleanup.policy compact": ("cleanup.policy", "compact"),
        "compression.type unknown": ("compression.type", "brotli"),
        "message.timestamp.type in lower case": ("message.timestamp.type", "createtime"),
    }.items():
        refused(name, configs=[config])
    refused("config twice", configs=[("retention.ms", "1"), ("retention.ms", "2")])


def growths():
    for count in (2, 1, 0, -1):
        probe(f"grow: 2 to {count}", lambda c, count=count: c.grow(c.topic(2), count))
    probe("grow: unknown topic", lambda c: c.grow(c.fresh(), 3))
    probe("grow: only validated", lambda c: c.grow(c.topic(2), 3, validate_only=True))
    probe("grow: twice in a request", lambda c: c.grow_all([growth(c.topic(), 2)] * 2))
    for name, assignments in {
        "assigned": [[1]],
        "too many assignments": [[1], [1]],
        "no assignments": [],
        "assigned to an unknown node": [[9]],
        "assigned to no node": [[]],
        "assigned to a node twice": [[1, 1]],
    }.items():
        probe(f"grow: {name}", lambda c, assignments=assignments: c.grow(c.topic(2), 3, assignments))


def deletions():
    probe("delete: unknown topic", lambda c: c.delete(c.fresh()))
    probe("delete: known and unknown", lambda c: sorted(c.delete(c.topic(), c.fresh())))
    probe("delete: one topic twice", lambda c: (lambda name: c.delete(name, name))(c.topic()))
    probe("delete: unknown id", lambda c: c.delete_by(None, uuid.uuid4().bytes))
    probe("delete: neither name nor id", lambda c: c.delete_by(None, bytes(16)))
    probe("delete: name and id", lambda c: c.delete_by(c.topic(), uuid.uuid4().bytes))
    probe("delete: unknown name in version 6", lambda c: c.delete_by(c.fresh(), bytes(16)))
    probe("delete: invalid name", lambda c: c.delete("a b"))


def produces():
    def one(name, records, configs=(), **options):
        """A produce and where the log ends then."""

        def run(client):
            topic = client.topic(configs=configs)
            return client.produce(topic, records, **options), client.end(topic)

        probe(f"produce: {name}", run)

    one("one record", batch(NOW))
    two = RECORD + SECOND_RECORD
    one("two records", batch(NOW, two, count=2))
    one("acks 1", batch(NOW), acks=1)
    one("acks 2", batch(NOW), acks=2)
    one("acks -2", batch(NOW), acks=-2)
    one("no records", b"")
    one("ten zeros", bytes(10))
    one("a hundred zeros", bytes(100))
    one("cut short", batch(NOW)[:-3])
    one("a byte too many", batch(NOW) + b"\0")
    one("wrong crc", batch(NOW, crc_off_by=1))
    for magic in (0, 1, 3):
        one(f"magic {magic}", batch(NOW, magic=magic))
    one("two batches", batch(NOW) * 2)
    one("base offset 77", batch(NOW, base=77))
    one("count 2 of one record", batch(NOW, count=2))
    one("count 1 of two records", batch(NOW, two, count=1))
    one("count 0", batch(NOW, b"", count=0, last=0))
    one("count negative", batch(NOW, count=-1, last=0))
    one("last offset delta 5 of one record", batch(NOW, last=5))
    one("last offset delta negative", batch(NOW, last=-1))
    malformed_records(one)
    one("codec 5", batch(NOW, attributes=5))
    one("codec 7", batch(NOW, attributes=7))
    one("control batch", batch(NOW, attributes=0x20))
    one("transactional without a producer", batch(NOW, attributes=0x10))
    one("transactional id and plain batch", batch(NOW), transactional_id="t")
    one("log append time bit", batch(NOW, attributes=8))
    one("unused attribute bit", batch(NOW, attributes=0x80))
    one("two hours ahead", batch(NOW + 2 * HOUR_MS))
    one("timestamp -1", batch(-1))
    one("max timestamp lies", batch(NOW, max_timestamp=NOW + 5))
    one("too large", batch(NOW, bytes(1_100_000)))
    one("larger than the topic allows", batch(NOW, RECORD), configs=[("max.message.bytes", "50")])
    one("log append time", batch(5), configs=[("message.timestamp.type", "LogAppendTime")])
    one("older than allowed", batch(NOW - HOUR_MS), configs=[("message.timestamp.before.max.ms", "1000")])
    one("acks all under min.insync.replicas", batch(NOW), configs=[("min.insync.replicas", "2")])
    probe("produce: unknown topic", lambda c: c.produce(c.fresh(), batch(NOW)))
    probe("produce: invalid topic", lambda c: c.produce("a b", batch(NOW)))
    probe("produce: unknown partition", lambda c: c.produce(c.topic(), batch(NOW), partition=9))
    probe("produce: negative partition", lambda c: c.produce(c.topic(), batch(NOW), partition=-1))


def malformed_records(one):
    """Records that are none or not where they must be, in every codec."""
    two = RECORD + SECOND_RECORD
    malformed = {
        "one record": (1, RECORD),
        "one record fewer than counted": (3, two),
        "one record more than counted": (1, two),
        "records cut short": (2, two[:-1]),
        "a byte behind the records": (2, two + b"\0"),
        "offset deltas that start at 1": (1, SECOND_RECORD),
        "offset delta 0 twice": (2, RECORD * 2),
        "record that is none": (1, b"\xff" * 8),
        "record of zeros": (1, bytes(8)),
        "record of a negative length": (1, b"\x01" + RECORD[1:]),
        "record shorter than its fields": (1, b"\x0c" + RECORD[1:]),
        "record longer than its fields": (1, b"\x10" + RECORD[1:] + b"\0"),
        "key length -2": (1, RECORD[:4] + b"\x03" + RECORD[5:]),
        "value beyond the record": (1, RECORD[:5] + b"\x64" + RECORD[6:]),
        "header that is not there": (1, RECORD[:-1] + b"\x02"),
        "negative number of headers": (1, RECORD[:-1] + b"\x01"),
        "header without a key": (1, b"\x12" + RECORD[1:-1] + b"\x02\x01\x01"),
        "header key that is not UTF-8": (1, b"\x14" + RECORD[1:-1] + b"\x02\x02\xff\x01"),
        "length of six bytes": (1, b"\x8e\x80\x80\x80\x80\0" + RECORD[1:]),
    }
    for codec, (number, compress) in CODECS.items():
        for name, (count, records) in malformed.items():
            one(f"{codec}: {name}", batch(NOW, compress(records), count, attributes=number))
        if number != 0:
            body = compress(RECORD)
            one(f"{codec}: not compressed", batch(NOW, attributes=number))
            one(f"{codec}: cut short", batch(NOW, body[:-3], attributes=number))
            one(f"{codec}: empty", batch(NOW, b"", attributes=number))
            one(f"{codec}: a byte behind the stream", batch(NOW, body + b"\0", attributes=number))


def producers():
    def sequence(name, *batches, acks=-1):
        """Batches of producers, as producer id, epoch and sequence, one after another to one partition."""

        def run(client):
            topic = client.topic()
            answers = [client.produce(topic, batch(NOW, producer=one), acks=acks) for one in batches]
            # Kafka tells the time of the batch as that of a duplicate's append, whatever the topic's timestamps are.
            return [(one["error"], one["offset"]) for one in answers]

        probe(f"producer: {name}", run)

    sequence("starts at 0", (1, 0, 0))
    sequence("starts at 9", (1, 0, 9))
    sequence("has no sequence", (1, 0, -1))
    sequence("has no epoch", (1, -1, 0))
    sequence("acks 1", (1, 0, 0), acks=1)
    sequence("repeats", (1, 0, 0), (1, 0, 0))
    sequence("leaves a gap", (1, 0, 0), (1, 0, 2), (1, 0, 1))
    sequence("repeats the sixth last", *[(1, 0, s) for s in range(7)], (1, 0, 0), (1, 0, 1), (1, 0, 6))
    sequence("new epoch not at 0", (1, 0, 0), (1, 1, 1), (1, 1, 0))
    sequence("old epoch", (1, 1, 0), (1, 0, 1), (1, 1, 1))
    sequence("new id", (1, 0, 0), (2, 0, 0), (1, 0, 1))

    def two_batches(client):
        return client.produce(client.topic(), batch(NOW, producer=(1, 0, 0)) + batch(NOW, producer=(1, 0, 1)))

    probe("producer: two batches", two_batches)
    probe("producer id: plain", lambda c: c.producer_id())
    probe("producer id: transactional", lambda c: c.producer_id("t"))
    probe("producer id: empty transactional", lambda c: c.producer_id(""))
    probe("producer id: time-out 0", lambda c: c.producer_id(timeout_ms=0))


def lookups():
    for timestamp in (-1, -2, -3, 0, -7):
        probe(f"offsets: {timestamp} of nothing", lambda c, t=timestamp: c.list_offsets(c.topic(), t))
        probe(f"offsets: {timestamp} of something", lambda c, t=timestamp: c.list_offsets(filled(c), t))
    for timestamp in (-4, -5, -6):
        probe(f"offsets: {timestamp} in version 5", lambda c, t=timestamp: c.list_offsets(filled(c), t))
        probe(f"offsets: {timestamp} in version 9", lambda c, t=timestamp: c.list_offsets_9(filled(c), t))
    probe("offsets: time of the second record", lambda c: c.list_offsets(filled(c), NOW + 1))
    probe("offsets: time after all records", lambda c: c.list_offsets(filled(c), NOW + 10))
    probe("offsets: unknown topic", lambda c: c.list_offsets(c.fresh(), -1))
    probe("offsets: unknown partition", lambda c: c.list_offsets(c.topic(), -1, 9))
    probe("offsets: negative partition", lambda c: c.list_offsets(c.topic(), -1, -1))
    probe("offsets: future epoch", lambda c: c.list_offsets(c.topic(), -1, epoch=5))
    probe("epoch end: known", lambda c: c.epoch_end(filled(c), 0))
    probe("epoch end: of nothing", lambda c: c.epoch_end(c.topic(), 0))
    probe("epoch end: not yet", lambda c: c.epoch_end(filled(c), 9))
    probe("epoch end: negative", lambda c: c.epoch_end(filled(c), -1))
    probe("epoch end: client is ahead", lambda c: c.epoch_end(filled(c), 0, current=9))
    probe("epoch end: unknown topic", lambda c: c.epoch_end(c.fresh(), 0))
    probe("epoch end: unknown partition", lambda c: c.epoch_end(filled(c), 0, partition=9))


def filled(client, count=5):
    """A topic of one partition with this many batches, a millisecond apart."""
    topic = client.topic()
    for index in range(count):
        assert client.produce(topic, batch(NOW + index))["error"] == 0
    return topic


def record_deletions():
    for before in (0, 3, 5, -1, -2, 6):
        probe(f"delete records: before {before} of 5", lambda c, b=before: c.delete_records(filled(c), b))

    def again(client):
        topic = filled(client)
        return [client.delete_records(topic, before) for before in (3, 1)] + [client.list_offsets(topic, -2)]

    probe("delete records: below the log start", again)
    probe("delete records: unknown topic", lambda c: c.delete_records(c.fresh(), 0))
    probe("delete records: unknown partition", lambda c: c.delete_records(c.topic(), 0, 9))


def fetches():
    for offset in (0, 3, 5, 6, -1):
        probe(f"fetch: {offset} of 5", lambda c, o=offset: c.fetch(filled(c), o))

    def below(client):
        topic = filled(client)
        client.delete_records(topic, 3)
        return [client.fetch(topic, offset) for offset in (2, 3)]

    probe("fetch: below the log start", below)
    probe("fetch: partition's max bytes 1", lambda c: c.fetch(filled(c), 0, bytes_max=1))
    probe("fetch: partition's max bytes 0", lambda c: c.fetch(filled(c), 0, bytes_max=0))
    probe("fetch: max bytes 1", lambda c: c.fetch(filled(c), 0, bytes_all=1))
    probe("fetch: max bytes 0", lambda c: c.fetch(filled(c), 0, bytes_all=0))
    probe("fetch: max bytes of one batch and a half", lambda c: c.fetch(filled(c), 0, bytes_max=100))
    probe("fetch: unknown topic", lambda c: c.fetch(c.fresh(), 0))
    probe("fetch: unknown partition", lambda c: c.fetch(c.topic(), 0, 9))
    probe("fetch: client is ahead", lambda c: c.fetch(filled(c), 0, epoch=9))
    probe("fetch: nothing", lambda c: c.fetch(None, 0))
    probe("fetch session: unknown", lambda c: c.fetch(c.topic(), 0, session=(12345, 1)))
    probe("fetch session: end of an unknown", lambda c: c.fetch(filled(c), 0, session=(12345, -1)))
    probe("fetch session: none to continue", lambda c: c.fetch(c.topic(), 0, session=(0, 1)))

    def continued(client):
        topic = filled(client)
        asks = ((1, None, 0), (2, topic, 3), (2, None, 0))
        # Clients keep a session on its connection; Chronik forgets it on another, and the client begins a new one.
        with client.one_connection():
            session = client.fetch(topic, 0, session=(0, 0))["session"]
            answers = [client.fetch(name, offset, session=(session, epoch)) for epoch, name, offset in asks]
        return [{**one, "session": one["session"] == session} for one in answers]

    probe("fetch session: continued, then out of turn", continued)


def configs():
    for name, kind, resource in (
        ("unknown topic", TOPIC, "absent"),
        ("invalid topic", TOPIC, "a b"),
        ("unknown broker", BROKER, "9"),
        ("broker that is no number", BROKER, "x"),
        ("unknown kind", 99, "x"),
    ):
        probe(f"configs: describe {name}", lambda c, k=kind, r=resource: c.describe_configs(k, r))
        probe(
            f"configs: change {name}", lambda c, k=kind, r=resource: c.change_configs(k, r, [("retention.ms", 0, "1")])
        )
        probe(f"configs: replace {name}", lambda c, k=kind, r=resource: c.alter_configs(k, r, [("retention.ms", "1")]))
    for name, keys in {"two keys": ["retention.ms", "segment.ms"], "unknown key": ["no.such"], "no keys": []}.items():
        # Which keys there are beyond those asked for is not compared.
        probe(
            f"configs: describe {name}",
            lambda c, keys=keys: {
                key: value
                for key, value in c.describe_configs(TOPIC, c.topic(), keys)["configs"].items()
                if key in ("retention.ms", "segment.ms", "no.such")
            },
        )
    shared = [
        "cleanup.policy",
        "compression.type",
        "flush.ms",
        "max.message.bytes",
        "message.timestamp.after.max.ms",
        "message.timestamp.before.max.ms",
        "message.timestamp.type",
        "retention.bytes",
        "retention.ms",
        "segment.bytes",
        "segment.ms",
    ]
    probe("configs: defaults", lambda c: c.describe_configs(TOPIC, c.topic(), shared))
    probe(
        "configs: default of min.insync.replicas",
        lambda c: c.describe_configs(TOPIC, c.topic(), ["min.insync.replicas"]),
    )
    probe("configs: default of flush.messages", lambda c: c.describe_configs(TOPIC, c.topic(), ["flush.messages"]))
    set_, delete, append, subtract = range(4)
    for name, changes in {
        "set": [("retention.ms", set_, "5")],
        "set to blanks around": [("retention.ms", set_, " 5 ")],
        "set to null": [("retention.ms", set_, None)],
        "set to nothing": [("retention.ms", set_, "")],
        "set to no number": [("retention.ms", set_, "x")],
        "delete": [("retention.ms", delete, None)],
        "delete with a value": [("retention.ms", delete, "7")],
        "delete what is not set": [("cleanup.policy", delete, None)],
        "delete an unknown key": [("no.such", delete, None)],
        "set an unknown key": [("no.such", set_, "1")],
        "append what is there": [("cleanup.policy", append, "delete")],
        "append an unknown word": [("cleanup.policy", append, "shred")],
        "append null": [("cleanup.policy", append, None)],
        "subtract what is not there": [("cleanup.policy", subtract, "compact")],
        "subtract all": [("cleanup.policy", subtract, "delete")],
        "append to what is no list": [("retention.ms", append, "1")],
        "unknown operation": [("retention.ms", 9, "1")],
        "one key twice": [("retention.ms", set_, "5"), ("retention.ms", set_, "6")],
        "one right and one wrong": [("retention.ms", set_, "5"), ("no.such", set_, "6")],
        "nothing": [],
    }.items():
        probe(f"configs: {name}", lambda c, changes=changes: c.changed(changes))
    probe("configs: only validated", lambda c: c.change_configs(TOPIC, c.topic(), [("retention.ms", 0, "5")], True))
    probe(
        "configs: only validated and wrong", lambda c: c.change_configs(TOPIC, c.topic(), [("no.such", 0, "5")], True)
    )
    for name, values in {
        "one": [("retention.ms", "5")],
        "none": [],
        "null": [("retention.ms", None)],
        "unknown": [("no.such", "1")],
        "one twice": [("retention.ms", "5"), ("retention.ms", "6")],
    }.items():
        probe(f"configs: replace {name}", lambda c, values=values: c.alter_configs(TOPIC, c.topic(), values))
    probe("configs: resources of no kind", lambda c: c.resources())
    probe("configs: topics and brokers as resources", lambda c: (c.topic(), c.resources(TOPIC, BROKER))[1])
    probe("configs: resources of unknown kind", lambda c: c.resources(99))


def cluster():
    probe("metadata: known", lambda c: c.metadata(c.topic(3)))
    probe("metadata: unknown", lambda c: c.metadata("absent"))
    probe("metadata: invalid", lambda c: c.metadata("a b"))
    probe("metadata: invalid, to be created", lambda c: c.metadata("a b", auto=True))
    probe("metadata: empty name", lambda c: c.metadata("", auto=True))
    probe("metadata: one twice", lambda c: (lambda name: c.metadata(name, name))(c.topic()))
    probe("metadata: none", lambda c: c.metadata())
    probe("metadata: known id", lambda c: c.metadata_by_id(c.topic_id(c.topic())))
    probe("metadata: known id and an empty name", lambda c: c.metadata_by_id(c.topic_id(c.topic()), name=""))
    probe("metadata: known id and another name", lambda c: c.metadata_by_id(c.topic_id(c.topic()), name="absent"))
    probe("metadata: unknown id", lambda c: c.metadata_by_id(uuid.uuid4().bytes))
    probe("metadata: no id", lambda c: c.metadata_by_id(bytes(16)))
    for kind in (1, 2, 3):
        probe(f"cluster: endpoints of type {kind}", lambda c, kind=kind: c.describe_cluster(kind))
    probe("partitions: known", lambda c: c.describe_partitions([c.topic(2)]))
    probe("partitions: unknown", lambda c: c.describe_partitions(["absent"]))
    probe("partitions: invalid", lambda c: c.describe_partitions(["a b"]))
    probe("partitions: limit 1", lambda c: c.describe_partitions([c.topic(2)], limit=1))
    probe("partitions: limit 0", lambda c: c.describe_partitions([c.topic(2)], limit=0))
    probe("partitions: limit -1", lambda c: c.describe_partitions([c.topic(2)], limit=-1))
    probe("partitions: from the second on", lambda c: (lambda t: c.describe_partitions([t], cursor=(t, 1)))(c.topic(3)))
    probe(
        "partitions: from beyond the last", lambda c: (lambda t: c.describe_partitions([t], cursor=(t, 9)))(c.topic(3))
    )
    probe("partitions: from a negative", lambda c: (lambda t: c.describe_partitions([t], cursor=(t, -1)))(c.topic(3)))
    probe("log dirs: known", lambda c: c.log_dirs([(c.topic(2), [0, 1])]))
    probe("log dirs: size", lambda c: c.log_dirs([(filled(c), [0])]))
    probe("log dirs: unknown topic", lambda c: c.log_dirs([("absent", [0])]))
    probe("log dirs: unknown partition", lambda c: c.log_dirs([(c.topic(), [9])]))


def frames():
    def sent(name, api, version, body=b"", flexible=False):
        probe(f"frame: {name}", lambda c: c.raw(frame(api, version, body, flexible)).hex())

    def api_versions(client, version, body):
        response = client.call(API_VERSIONS, version, body, flexible=True)
        return {"error": response.i16(), "others": response.i32() > 0}

    probe("frame: unknown version of ApiVersions", lambda c: api_versions(c, 99, compact_text("a") * 2 + NO_TAGS))
    probe(
        "frame: ApiVersions with an invalid name",
        lambda c: c.call(API_VERSIONS, 3, compact_text("a b") + compact_text("1") + NO_TAGS, True).i16(),
    )
    probe(
        "frame: ApiVersions without a name",
        lambda c: c.call(API_VERSIONS, 3, compact_text("") * 2 + NO_TAGS, True).i16(),
    )
    sent("unknown api", 999, 0)
    sent("api of brokers", 4, 0)
    sent("unknown version of Metadata", METADATA, 99, flexible=True)
    sent("negative version of Metadata", METADATA, -1)
    sent("Produce in version 2", PRODUCE, 2)
    sent("Fetch in version 3", FETCH, 3)
    sent("ListOffsets in version 0", LIST_OFFSETS, 0)
    sent("body cut short", METADATA, 8, i32(1) + i16(5) + b"ab")
    sent("array longer than the body", METADATA, 8, i32(1_000_000))
    sent("array of length -2", METADATA, 8, i32(-2) + i8(0) * 3)
    probe(
        "frame: bytes behind the request", lambda c: len(c.raw(frame(METADATA, 8, array([]) + i8(0) * 3 + b"abc"))) > 0
    )
    probe("frame: empty", lambda c: c.raw(b""))
    probe("frame: three bytes", lambda c: c.raw(b"abc"))
    probe("frame: negative length", lambda c: c.raw(b"", -1))
    probe("frame: longer than allowed", lambda c: c.raw(b"", 0x7FFFFFFF))
    probe("frame: tls", lambda c: c.raw(bytes.fromhex("00010000"), 0x16030100))


for kind in (creations, growths, deletions, produces, producers, lookups, record_deletions, fetches):
    kind()
for kind in (configs, cluster, frames):
    kind()
groups.register(probe)
