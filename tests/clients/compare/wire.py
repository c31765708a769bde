"""Kafka's wire encoding, as much as is needed: frames that are wrong on purpose cannot come from a client."""

import gzip
import socket
import struct

PRODUCE, FETCH, LIST_OFFSETS, METADATA, API_VERSIONS = 0, 1, 2, 3, 18
CREATE_TOPICS, DELETE_TOPICS, DELETE_RECORDS, INIT_PRODUCER_ID, OFFSET_FOR_LEADER_EPOCH = 19, 20, 21, 22, 23
DESCRIBE_CONFIGS, ALTER_CONFIGS, DESCRIBE_LOG_DIRS, CREATE_PARTITIONS = 32, 33, 35, 37
INCREMENTAL_ALTER_CONFIGS, DESCRIBE_CLUSTER, LIST_CONFIG_RESOURCES, DESCRIBE_TOPIC_PARTITIONS = 44, 60, 74, 75

NO_TAGS = b"\0"
SECONDS = 10


def i8(value):
    return struct.pack(">b", value)


def i16(value):
    return struct.pack(">h", value)


def i32(value):
    return struct.pack(">i", value)


def i64(value):
    return struct.pack(">q", value)


def text(value):
    return i16(-1) if value is None else i16(len(value.encode())) + value.encode()


def array(items):
    return i32(-1) if items is None else i32(len(items)) + b"".join(items)


def unsigned(value):
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def compact_text(value):
    return unsigned(0) if value is None else unsigned(len(value.encode()) + 1) + value.encode()


def compact_array(items):
    return unsigned(0) if items is None else unsigned(len(items) + 1) + b"".join(items)


class Reader:
    """Takes a response apart, field by field."""

    def __init__(self, data):
        self._data = data
        self._at = 0

    def take(self, count):
        taken = self._data[self._at : self._at + count]
        if len(taken) != count:
            raise ValueError(f"{count} bytes wanted at {self._at} of {self._data.hex()}")
        self._at += count
        return taken

    def i8(self):
        return struct.unpack(">b", self.take(1))[0]

    def i16(self):
        return struct.unpack(">h", self.take(2))[0]

    def i32(self):
        return struct.unpack(">i", self.take(4))[0]

    def i64(self):
        return struct.unpack(">q", self.take(8))[0]

    def text(self):
        length = self.i16()
        return None if length < 0 else self.take(length).decode()

    def array(self, item):
        return [item() for _ in range(self.i32())]

    def unsigned(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def compact_text(self):
        length = self.unsigned()
        return None if length == 0 else self.take(length - 1).decode()

    def compact_array(self, item):
        length = self.unsigned()
        return None if length == 0 else [item() for _ in range(length - 1)]

    def tags(self):
        for _ in range(self.unsigned()):
            self.unsigned()
            self.take(self.unsigned())


class Closed(Exception):
    """The broker closed the connection instead of answering."""


def frame(api, version, body, flexible=False):
    header = i16(api) + i16(version) + i32(7) + text("compare")
    return header + (NO_TAGS if flexible else b"") + body


class Connection:
    """A connection to a broker that carries one request at a time."""

    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self._socket = socket.create_connection((host, int(port)), SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def exchange(self, request, length=None):
        """Sends one frame; the answer without its length and correlation id.

        `length` is what the frame says of itself, where that is a lie.
        """
        try:
            self._socket.sendall(i32(len(request) if length is None else length) + request)
            size = struct.unpack(">i", self._receive(4))[0]
            return self._receive(size)[4:]
        except ConnectionError as error:
            raise Closed from error

    def _receive(self, count):
        received = b""
        while len(received) < count:
            some = self._socket.recv(count - len(received))
            if not some:
                raise ConnectionResetError
            received += some
        return received


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()

# One record: length 7, attributes, timestamp delta and offset delta 0, no key, a value of one byte, no headers.
RECORD = bytes([14, 0, 0, 0, 1, 2, 0x78, 0])
SECOND_RECORD = bytes([14, 0, 0, 2, 1, 2, 0x79, 0])




def bare_snappy(data):
    """One literal, which is what a snappy block of few bytes may be."""
    return unsigned(len(data)) + bytes([len(data) - 1 << 2]) + data


def lz4_frame(data):
    """One stored block."""
    return bytes.fromhex("04224d18604082") + struct.pack("<I", len(data) | 1 << 31) + data + bytes(4)


def zstd_frame(data):
    """One raw block, in a frame that says its size."""
    return bytes.fromhex("28b52ffd20") + bytes([len(data)]) + struct.pack("<I", len(data) << 3 | 1)[:3] + data


# By name: the number in a batch's attributes, and what makes a small stream of it.
CODECS = {
    "none": (0, bytes),
    "gzip": (1, gzip.compress),
    "snappy": (2, bare_snappy),
    "lz4": (3, lz4_frame),
    "zstd": (4, zstd_frame),
}


def batch(
    timestamp,
    records=RECORD,
    count=1,
    last=None,
    attributes=0,
    magic=2,
    base=0,
    producer=(-1, -1, -1),
    crc_off_by=0,
    max_timestamp=None,
):
    """A record batch; by default a correct one of one record."""
    last = count - 1 if last is None else last
    max_timestamp = timestamp if max_timestamp is None else max_timestamp
    body = struct.pack(">hiqqqhii", attributes, last, timestamp, max_timestamp, *producer, count) + records
    crc = crc32c(body) ^ crc_off_by
    return struct.pack(">qiibI", base, len(body) + 9, -1, magic, crc) + body
