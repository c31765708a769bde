"""What the Python suites share: named checks with a deadline, names of this run, and records to compare."""

import os
import queue
import random
import re
import threading
import time

CHECK_SECONDS = 30
WAIT_SECONDS = 15


class Checks:
    """Runs named checks one after another, prints a line for each and counts them. A check that hangs fails."""

    def __init__(self):
        self._only = re.compile(os.environ.get("CHECKS", ""))
        self._passed = 0
        self._failed = 0

    def check(self, name, body, *arguments):
        if not self._only.search(name):
            return
        outcome = queue.Queue()

        def run():
            try:
                body(*arguments)
                outcome.put(None)
            except BaseException as error:  # Whatever ends a check early is its failure.
                outcome.put(error)

        threading.Thread(target=run, daemon=True).start()
        try:
            error = outcome.get(timeout=CHECK_SECONDS)
        except queue.Empty:
            error = TimeoutError(f"not done after {CHECK_SECONDS} s")
        if error is None:
            self._passed += 1
            print(f"ok {name}", flush=True)
        else:
            self._failed += 1
            print(f"FAIL {name} {_describe(error)}", flush=True)

    def finish(self):
        """Prints the totals and ends the process; threads of hung checks must not keep it alive."""
        print(f"{self._passed} passed, {self._failed} failed", flush=True)
        os._exit(0 if self._failed == 0 and self._passed > 0 else 1)


def _describe(error):
    place = ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if os.path.basename(code.co_filename) == "suite.py":
            place = f" at suite.py:{trace.tb_lineno}"
        trace = trace.tb_next
    return f"{type(error).__name__}: {error}{place}".replace("\n", " ")


def equal(expected, actual, what):
    if expected != actual:
        raise AssertionError(f"{what}: expected {_short(expected)}, got {_short(actual)}")


def _short(value):
    text = repr(value)
    return text if len(text) < 300 else text[:300] + "..."


def that(condition, what):
    if not condition:
        raise AssertionError(what)


def eventually(what, condition):
    """Asks again until the answer is true. For state that a broker may publish a moment after it acknowledged."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        that(time.monotonic() < deadline, f"never happened: {what}")
        time.sleep(0.01)


class Names:
    """Topic names that no other run uses."""

    def __init__(self, suite):
        self._prefix = f"{suite}-{time.time_ns() // 1_000_000:x}-{os.getpid():x}"

    def name(self, what):
        return f"{self._prefix}-{what}"


class Record:
    """A record as sent or as read; equal when everything a producer decides is equal."""

    __slots__ = ("partition", "key", "value", "headers", "timestamp")

    def __init__(self, partition, key, value, headers=(), timestamp=None):
        self.partition = partition
        self.key = key
        self.value = value
        self.headers = list(headers)
        self.timestamp = timestamp


def payload(source, size):
    """Half random bytes, half repeated ones, so that a codec has something to do."""
    return bytes([size % 256]) * (size // 2) + source.randbytes(size - size // 2)


def records(partitions, count, size_max):
    """Records with keys, values, headers and timestamps, dealt to the partitions in turn."""
    source = random.Random(count * 31 + size_max)
    start = int(time.time() * 1000)
    made = []
    for i in range(count):
        headers = [(f"h{i}", payload(source, source.randrange(30)))] if i % 3 == 0 else []
        key = payload(source, source.randrange(20))
        value = payload(source, source.randrange(size_max))
        made.append(Record(i % partitions, key, value, headers, start + i // 100))
    return made


def same(sent, read):
    """Compares what was sent with what was read, partition by partition, byte for byte. Offsets start at 0.

    `read` holds pairs of offset and record.
    """
    expected = {}
    for record in sent:
        expected.setdefault(record.partition, []).append(record)
    upcoming = {}
    for offset, got in read:
        index = upcoming.get(got.partition, 0)
        upcoming[got.partition] = index + 1
        where = f"{got.partition}@{offset}"
        equal(index, offset, f"offset in partition {got.partition}")
        that(index < len(expected.get(got.partition, [])), f"more records than were sent: {where}")
        want = expected[got.partition][index]
        equal(want.key, got.key, f"key at {where}")
        equal(want.value, got.value, f"value at {where}")
        equal(want.headers, got.headers, f"headers at {where}")
        if want.timestamp is not None:
            equal(want.timestamp, got.timestamp, f"timestamp at {where}")
    equal(len(sent), len(read), "records")


# Timestamps of five records, in milliseconds after TIMES_BASE; neither start at now nor grow steadily.
TIMES_BASE = int(time.time() * 1000) - 3_600_000
TIMES_AFTER_BASE = [0, 10, 20, 30, 5]


def timed_records():
    return [Record(0, None, bytes([after]), timestamp=TIMES_BASE + after) for after in TIMES_AFTER_BASE]


# For a topic that is to be compacted.
COMPACTED = {"cleanup.policy": "compact", "segment.bytes": "1048576", "min.cleanable.dirty.ratio": "0.01"}
# Two of them close the segment that is written to: only closed ones are compacted.
CLOSING = [Record(0, b"closing-%d" % i, bytes(900_000)) for i in range(2)]


def keyed_records():
    """Keys that come again and again, keys that come once, and tombstones of either: what stays has holes around it."""
    made = []
    for i in range(300):
        key = b"once-%d" % i if i % 20 == 0 else b"key-%d" % (i % 7)
        value = None if i % 60 == 0 or i == 297 else b"%d " % i + bytes(400)
        made.append(Record(0, key, value))
    return made


def newest(written, begin=0):
    """Offset, key and value of the newest record of every key, as far as it is at `begin` or behind."""
    last = {record.key: offset for offset, record in enumerate(written)}
    offsets = sorted(offset for offset in last.values() if offset >= begin)
    return [(offset, written[offset].key, written[offset].value) for offset in offsets]


def only_the_newest_stays(written, read_from, close_segment):
    """What is read from an offset on comes to be the newest record of every key, from wherever in a hole it begins."""

    def is_compacted():
        found = read_from(0)
        # Each look is something new, so that the log is dirty.
        close_segment()
        return found == newest(written)

    eventually("one record of every key, at its offset", is_compacted)
    for begin in (1, 21, 281):
        equal(newest(written, begin), read_from(begin), f"what follows the hole at {begin}")
