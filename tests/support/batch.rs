//! Record batches written and read independently of the code under test. Source: KIP-98, KIP-82.

use bytes::Bytes;

pub const HEADER_BYTES: usize = 61;
/// Base offset, length and leader epoch: the broker stamps the first and the last.
pub const STAMPED_BYTES: usize = 16;

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl Record {
    pub fn of(value: impl AsRef<[u8]>) -> Self {
        let value = Some(Bytes::copy_from_slice(value.as_ref()));
        Self { timestamp: now_ms(), key: None, value, headers: Vec::new() }
    }

    pub fn at(mut self, timestamp: i64) -> Self {
        self.timestamp = timestamp;
        self
    }
}

pub fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("after 1970").as_millis() as i64
}

/// A batch to be written.
#[derive(Clone, Debug)]
pub struct Batch {
    pub records: Vec<Record>,
    pub attributes: i16,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
}

impl Batch {
    pub fn of_records(records: Vec<Record>) -> Self {
        Self { records, attributes: 0, producer_id: -1, producer_epoch: -1, base_sequence: -1 }
    }

    /// One record for each value, as of now.
    pub fn of<V: AsRef<[u8]>>(values: impl IntoIterator<Item = V>) -> Self {
        Self::of_records(values.into_iter().map(Record::of).collect())
    }

    /// One record of `bytes` bytes.
    pub fn of_size(bytes: usize) -> Self {
        // Not compressible, and not all alike.
        let mut random = super::random::Random::new(bytes as u64);
        let mut value = Vec::with_capacity(bytes + 8);
        while value.len() < bytes {
            value.extend(random.next().to_le_bytes());
        }
        value.truncate(bytes);
        Self::of([value])
    }

    pub fn idempotent(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Self {
        self.producer_id = producer_id;
        self.producer_epoch = producer_epoch;
        self.base_sequence = base_sequence;
        self
    }

    pub fn encode(&self) -> Bytes {
        self.encode_vec().into()
    }

    pub fn encode_vec(&self) -> Vec<u8> {
        let base = self.records.first().map_or(-1, |record| record.timestamp);
        let max = self.records.iter().map(|record| record.timestamp).max().unwrap_or(-1);
        let count = self.records.len() as i32;
        let mut out = vec![0; 12];
        out.extend((-1i32).to_be_bytes());
        out.push(2);
        out.extend([0; 4]);
        out.extend(self.attributes.to_be_bytes());
        out.extend((count - 1).to_be_bytes());
        out.extend(base.to_be_bytes());
        out.extend(max.to_be_bytes());
        out.extend(self.producer_id.to_be_bytes());
        out.extend(self.producer_epoch.to_be_bytes());
        out.extend(self.base_sequence.to_be_bytes());
        out.extend(count.to_be_bytes());
        for (index, record) in self.records.iter().enumerate() {
            let mut body = vec![0];
            put_varint(&mut body, record.timestamp - base);
            put_varint(&mut body, index as i64);
            put_bytes(&mut body, record.key.as_deref());
            put_bytes(&mut body, record.value.as_deref());
            put_varint(&mut body, record.headers.len() as i64);
            for (key, value) in &record.headers {
                put_bytes(&mut body, Some(key.as_bytes()));
                put_bytes(&mut body, value.as_deref());
            }
            put_varint(&mut out, body.len() as i64);
            out.extend(body);
        }
        seal(&mut out);
        out
    }
}

/// Makes length and CRC right for what the bytes are now.
pub fn seal(batch: &mut [u8]) {
    let length = batch.len() as i32 - 12;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend(bytes);
        }
    }
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

/// A batch as it was read.
#[derive(Clone, Debug)]
pub struct Stored {
    pub base_offset: i64,
    pub leader_epoch: i32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    /// All of the batch's bytes.
    pub bytes: Bytes,
}

impl Stored {
    pub fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    pub fn codec(&self) -> i16 {
        self.attributes & 7
    }

    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Offset and record of each, when the batch is not compressed.
    pub fn records(&self) -> Vec<(i64, Record)> {
        assert_eq!(self.codec(), 0, "a compressed batch has to be decompressed first");
        self.records_of(self.payload())
    }

    pub fn records_of(&self, payload: &[u8]) -> Vec<(i64, Record)> {
        let mut rest = payload;
        let mut records = Vec::new();
        while !rest.is_empty() {
            let length = varint(&mut rest) as usize;
            let (mut body, after) = rest.split_at(length);
            rest = after;
            body = &body[1..];
            let timestamp = self.base_timestamp + varint(&mut body);
            let offset = self.base_offset + varint(&mut body);
            let key = nullable(&mut body);
            let value = nullable(&mut body);
            let headers = (0..varint(&mut body))
                .map(|_| {
                    let key = nullable(&mut body).expect("a header has a key");
                    (String::from_utf8(key.to_vec()).expect("UTF-8"), nullable(&mut body))
                })
                .collect();
            assert!(body.is_empty(), "bytes after a record");
            records.push((offset, Record { timestamp, key, value, headers }));
        }
        // Fewer than it has offsets only once it was compacted.
        let count = i32::from_be_bytes(field(&self.bytes, 57));
        assert_eq!(records.len() as i32, count, "records of a batch");
        assert!(count <= self.last_offset_delta + 1, "{count} records in fewer offsets");
        records
    }

    /// Whether these are the bytes that a producer sent, but for what a broker stamps.
    pub fn is_as_sent(&self, sent: &[u8]) -> bool {
        self.bytes.len() == sent.len()
            && self.bytes[8..12] == sent[8..12]
            && self.bytes[STAMPED_BYTES..] == sent[STAMPED_BYTES..]
    }
}

fn varint(from: &mut &[u8]) -> i64 {
    let mut bits = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = from[0];
        *from = &from[1..];
        bits |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

fn nullable(from: &mut &[u8]) -> Option<Bytes> {
    let length = usize::try_from(varint(from)).ok()?;
    let (value, rest) = from.split_at(length);
    *from = rest;
    Some(Bytes::copy_from_slice(value))
}

/// The whole batches of a fetch response, each with its CRC verified. A batch that was cut off at the
/// end is left out, as a consumer would.
pub fn parse(records: &Bytes) -> Vec<Stored> {
    let mut batches = Vec::new();
    let mut at = 0;
    while records.len() - at >= HEADER_BYTES {
        let head = &records[at..];
        let length = i32::from_be_bytes(field(head, 8)) as usize + 12;
        if head.len() < length {
            break;
        }
        let bytes = records.slice(at..at + length);
        assert_eq!(bytes[16], 2, "magic");
        let crc = u32::from_be_bytes(field(&bytes, 17));
        assert_eq!(crc, crc32c::crc32c(&bytes[21..]), "CRC of the batch at byte {at}");
        batches.push(Stored {
            base_offset: i64::from_be_bytes(field(&bytes, 0)),
            leader_epoch: i32::from_be_bytes(field(&bytes, 12)),
            attributes: i16::from_be_bytes(field(&bytes, 21)),
            last_offset_delta: i32::from_be_bytes(field(&bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(&bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(&bytes, 35)),
            producer_id: i64::from_be_bytes(field(&bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(&bytes, 51)),
            base_sequence: i32::from_be_bytes(field(&bytes, 53)),
            bytes,
        });
        at += length;
    }
    batches
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("N bytes")
}
