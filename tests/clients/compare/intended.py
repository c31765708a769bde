"""What Chronik answers otherwise than Kafka on purpose, and why."""

from wire import CODECS, batch

CLOSED = "connection closed"


def code(error):
    return {"error": error}


def refused(error):
    """The answer to a produce, and where the log of its topic ends."""
    return {"error": error, "offset": -1}, 0


APPENDED = {"error": 0, "offset": 0, "append_time": False, "log_start": 0}, 1
CORRUPT_MESSAGE, INVALID_TIMESTAMP, INVALID_CONFIG, INVALID_REQUEST = 2, 32, 40, 42
UNSUPPORTED_FOR_MESSAGE_FORMAT, DUPLICATE_SEQUENCE_NUMBER, INVALID_RECORD = 43, 46, 87
TRANSACTIONAL_ID_AUTHORIZATION_FAILED, UNKNOWN_TOPIC_ID = 53, 100
AS_BEFORE = {"retention.ms": ("1000", 0, 1, 0, 5), "cleanup.policy": ("delete", 0, 5, 0, 7)}
DAMAGED = "bytes that are not as long as they say are damaged ones, as with a wrong CRC, and worth another try"

# What is different on purpose, by probe: Chronik's answer, and why.
INTENDED = {
    "group: consumer joins with an empty list of topics": (
        {**code(0), "has id": True, "epoch": 2, "interval": 5000, "assigned": 0},
        "a group's epochs begin at 2, whatever its first member subscribes to",
    ),
    "group: consumer joins with an expression": (
        {**code(0), "has id": True, "epoch": 2, "interval": 5000, "assigned": 2},
        "an expression is looked at when it comes, not a moment later",
    ),
    "group: classic member joins a consumer group with members": (
        {**code(23), "generation": -1, "protocol": "", "leads": False, "has id": False, "members": []},
        "a subscription that cannot be read is refused as such; Kafka fails over it",
    ),
    "create: segment.bytes 1000": (code(0), "small segments do no harm here"),
    "create: cleanup.policy empty": (code(INVALID_CONFIG), "retention.ms=-1 is the one way to keep everything"),
    "create: cleanup.policy twice delete": (code(INVALID_CONFIG), "a word that is named twice is a mistake"),
    "produce: magic 0": (refused(UNSUPPORTED_FOR_MESSAGE_FORMAT), "formats before magic 2 are refused by that name"),
    "produce: magic 1": (refused(UNSUPPORTED_FOR_MESSAGE_FORMAT), "formats before magic 2 are refused by that name"),
    "produce: magic 3": (refused(UNSUPPORTED_FOR_MESSAGE_FORMAT), "an unknown format is refused by that name"),
    "produce: a hundred zeros": (refused(UNSUPPORTED_FOR_MESSAGE_FORMAT), "the format is looked at first"),
    "produce: ten zeros": (refused(CORRUPT_MESSAGE), DAMAGED),
    "produce: cut short": (refused(CORRUPT_MESSAGE), DAMAGED),
    "produce: a byte too many": (refused(CORRUPT_MESSAGE), DAMAGED),
    "produce: base offset 77": (APPENDED, "the base offset is for the broker to assign and not looked at"),
    "produce: codec 5": (refused(INVALID_RECORD), "Kafka answers UNKNOWN_SERVER_ERROR"),
    "produce: codec 7": (refused(INVALID_RECORD), "Kafka answers UNKNOWN_SERVER_ERROR"),
    "produce: transactional without a producer": (refused(INVALID_RECORD), "transactions are not served"),
    "produce: log append time bit": (refused(INVALID_TIMESTAMP), "only the broker says log append time"),
    "produce: unused attribute bit": (refused(INVALID_RECORD), "what is not understood is not stored"),
    "producer: repeats the sixth last": (
        [(0, offset) for offset in range(7)] + [(DUPLICATE_SEQUENCE_NUMBER, -1)] * 2 + [(0, 6)],
        "Kafka calls out of order what is stored, and clients report it as lost",
    ),
    "producer: has no epoch": ([(INVALID_RECORD, -1)], "a producer id without an epoch is no producer's"),
    "producer id: transactional": (
        {**code(TRANSACTIONAL_ID_AUTHORIZATION_FAILED), "id": False, "epoch": -1},
        "transactions are not served",
    ),
    "producer id: empty transactional": (
        {**code(TRANSACTIONAL_ID_AUTHORIZATION_FAILED), "id": False, "epoch": -1},
        "transactions are not served",
    ),
    "configs: default of min.insync.replicas": (
        {**code(0), "configs": {"min.insync.replicas": ("1", 0, 5, 0, 3)}},
        "Kafka copies the default into the cluster's configuration",
    ),
    "configs: default of flush.messages": (
        {**code(0), "configs": {"flush.messages": ("1", 0, 5, 0, 5)}},
        "what is acknowledged is on the disk",
    ),
    "configs: delete an unknown key": ({**code(INVALID_CONFIG), **AS_BEFORE}, "an unknown key is refused by name"),
    "configs: subtract all": ({**code(INVALID_CONFIG), **AS_BEFORE}, "as with creation: the policy is never empty"),
    "configs: unknown operation": ({**code(INVALID_REQUEST), **AS_BEFORE}, "Kafka answers UNKNOWN_SERVER_ERROR"),
    "configs: resources of no kind": ({**code(0), "kinds": [2, 4]}, "Kafka has loggers of brokers as well"),
    "metadata: no id": ({**code(UNKNOWN_TOPIC_ID), "name": None, "id": True}, "Kafka answers UNKNOWN_SERVER_ERROR"),
    "fetch: max bytes of one batch and a half": (
        {
            "session_error": 0,
            "session": 0,
            "partitions": [
                {
                    "partition": 0,
                    "error": 0,
                    "high_watermark": 5,
                    "last_stable": 5,
                    "log_start": 0,
                    "aborted": [],
                    "preferred": -1,
                    "bytes": len(batch(0)),
                }
            ],
        },
        "batches are whole; Kafka cuts the last one short, and clients pass over it",
    ),
    "frame: array of length -2": (CLOSED, "null is -1 and nothing else"),
}


def malformed_records():
    """A batch whose records cannot be what they say is refused as that, in whatever codec it comes."""
    for codec in CODECS:
        for what in ("offset deltas that start at 1", "offset delta 0 twice"):
            yield codec, what, "Kafka stores it plain, so that offsets repeat, and answers UNKNOWN_SERVER_ERROR else"
        yield codec, "key length -2", "null is -1 and nothing else"
        if codec == "none":
            yield codec, "record that is none", "Kafka answers UNKNOWN_SERVER_ERROR"
            yield codec, "length of six bytes", "Kafka answers UNKNOWN_SERVER_ERROR"
            continue
        for what in ("record of a negative length", "record shorter than its fields"):
            yield codec, what, "Kafka refuses it plain and passes over it compressed"
        for what in ("not compressed", "cut short", "empty"):
            # Kafka does not miss the stream of an empty zstd body, only its records.
            if (codec, what) != ("zstd", "empty"):
                yield codec, what, "Kafka answers UNKNOWN_SERVER_ERROR"
        yield codec, "a byte behind the stream", "not every consumer would pass over it"


for codec, what, reason in malformed_records():
    INTENDED[f"produce: {codec}: {what}"] = (refused(INVALID_RECORD), reason)
