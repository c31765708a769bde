//! Judging Produce responses.
//!
//! A good answer has one form: what it may differ in is where the records went, and a few numbers that are of no
//! interest. So the codec encodes that form once, and an answer is good when its other bytes are the same; that allocates
//! nothing and leaves no field unseen. Any other answer is decoded, to say what is wrong with it.

use bytes::Bytes;
use chronik_protocol::messages::produce_response::{
    PartitionProduceResponse, TopicProduceResponse,
};
use chronik_protocol::messages::{ProduceResponse, ResponseHeader};
use chronik_protocol::{ApiKey, EncodeError, Message, Reader, encode_response};

use crate::engine::{Fault, Frame, Outbox};
use crate::wire::code_name;

const PREFIX_BYTES: usize = 4;

// Stand for the numbers that differ; each is found in the encoding by its bytes.
const CORRELATION: i32 = 0x1f2e_3d01;
const THROTTLE: i32 = 0x1f2e_3d02;
const INDEX: i32 = 0x1f2e_3d03;
const BASE_OFFSET: i64 = 0x1f2e_3d4c_5b6a_7904;
const APPEND_TIME: i64 = 0x1f2e_3d4c_5b6a_7905;
const LOG_START: i64 = 0x1f2e_3d4c_5b6a_7906;

/// Bytes that must be the same, around those that may differ.
#[derive(Clone, Debug, Default)]
struct Pattern {
    bytes: Vec<u8>,
    /// 0xff where a byte counts.
    mask: Vec<u8>,
}

impl Pattern {
    fn matches(&self, bytes: &[u8]) -> bool {
        let differs = |((a, b), mask): ((&u8, &u8), &u8)| (a ^ b) & mask != 0;
        bytes.len() == self.bytes.len()
            && !bytes.iter().zip(&self.bytes).zip(&self.mask).any(differs)
    }
}

/// The form of good answers to requests with a certain number of batches.
#[derive(Clone, Debug)]
pub struct GoodAnswer {
    version: i16,
    head: Pattern,
    entry: Pattern,
    tail: Pattern,
    entries: usize,
    index_at: usize,
    base_offset_at: usize,
}

impl GoodAnswer {
    /// The form for requests to `topic` with `entries` batches.
    ///
    /// # Errors
    /// [`EncodeError`] when there is no such answer in `version`.
    pub fn new(version: i16, topic: &str, entries: usize) -> Result<Self, EncodeError> {
        let entry = |index| PartitionProduceResponse {
            index: INDEX.wrapping_add(index << 8),
            base_offset: BASE_OFFSET,
            log_append_time_ms: APPEND_TIME,
            log_start_offset: LOG_START,
            ..PartitionProduceResponse::default()
        };
        let count = i32::try_from(entries).expect("as many as a request has");
        let response = ProduceResponse {
            responses: vec![TopicProduceResponse {
                name: topic.into(),
                partition_responses: (0..count).map(entry).collect(),
                ..TopicProduceResponse::default()
            }],
            throttle_time_ms: THROTTLE,
            ..ProduceResponse::default()
        };
        let chunks = encode_response(CORRELATION, version, &response)?;
        let frame: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        Ok(Self::cut(version, &frame, entries))
    }

    fn cut(version: i16, frame: &[u8], entries: usize) -> Self {
        let mut mask = vec![0xff; frame.len()];
        let mut hide = |value: &[u8]| -> Vec<usize> {
            let found: Vec<usize> = frame
                .windows(value.len())
                .enumerate()
                .filter(|(_, window)| *window == value)
                .map(|(at, _)| at)
                .collect();
            for at in &found {
                mask[*at..*at + value.len()].fill(0);
            }
            found
        };
        hide(&CORRELATION.to_be_bytes());
        hide(&THROTTLE.to_be_bytes());
        hide(&APPEND_TIME.to_be_bytes());
        hide(&LOG_START.to_be_bytes());
        let base_offsets = hide(&BASE_OFFSET.to_be_bytes());
        let indexes: Vec<usize> = (0..entries)
            .map(|index| {
                let index = INDEX.wrapping_add((index as i32) << 8);
                hide(&index.to_be_bytes())[0]
            })
            .collect();
        assert!(base_offsets.len() == entries, "every number is found once an entry");
        // Entries are of one size; the index is the first of their fields.
        let first = indexes[0];
        let entry_bytes = match indexes.get(1) {
            Some(second) => second - first,
            None => Self::entry_bytes(version),
        };
        let end = first + entry_bytes * entries;
        let part = |range: std::ops::Range<usize>| Pattern {
            bytes: frame[range.clone()].to_vec(),
            mask: mask[range].to_vec(),
        };
        Self {
            version,
            head: part(0..first),
            entry: part(first..first + entry_bytes),
            tail: part(end..frame.len()),
            entries,
            index_at: 0,
            base_offset_at: base_offsets[0] - first,
        }
    }

    /// Size of one entry without errors.
    fn entry_bytes(version: i16) -> usize {
        let entry = PartitionProduceResponse::default();
        let topic = |count| ProduceResponse {
            responses: vec![TopicProduceResponse {
                partition_responses: vec![entry.clone(); count],
                ..TopicProduceResponse::default()
            }],
            ..ProduceResponse::default()
        };
        let size = |count| topic(count).encoded_size(version).expect("it was encoded before");
        size(2) - size(1)
    }

    /// Hands partition and base offset of every batch to `each`, if this is a good answer; returns `false`, and
    /// may have handed out some, if not.
    pub fn read(&self, frame: &[u8], mut each: impl FnMut(i32, i64) -> bool) -> bool {
        let entry_bytes = self.entry.bytes.len();
        let entries_bytes = entry_bytes * self.entries;
        if frame.len() != self.head.bytes.len() + entries_bytes + self.tail.bytes.len() {
            return false;
        }
        let (head, rest) = frame.split_at(self.head.bytes.len());
        let (entries, tail) = rest.split_at(entries_bytes);
        if !self.head.matches(head) || !self.tail.matches(tail) {
            return false;
        }
        entries.chunks_exact(entry_bytes).all(|entry| {
            let partition = i32::from_be_bytes(number(entry, self.index_at));
            let base_offset = i64::from_be_bytes(number(entry, self.base_offset_at));
            self.entry.matches(entry) && each(partition, base_offset)
        })
    }

    /// Says what is wrong with an answer that is not good: a refusal of the server's, or worse.
    #[must_use]
    pub fn fault(&self, frame: Frame<'_>) -> Fault {
        let mut reader = Reader::new(frame.to_bytes());
        let header_version = ApiKey::Produce.response_header_version(self.version);
        let decoded = ResponseHeader::decode(&mut reader, header_version)
            .and_then(|_| ProduceResponse::decode(&mut reader, self.version))
            .and_then(|response| reader.expect_end().map(|()| response));
        let response = match decoded {
            Ok(response) => response,
            Err(error) => return Fault::Wrong(format!("no Produce response: {error}")),
        };
        let entries = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        for entry in entries {
            if entry.error_code != 0 {
                let words = entry.error_message.as_deref().unwrap_or_default();
                let (partition, code) = (entry.index, code_name(entry.error_code));
                return Fault::Refused(format!("partition {partition}: {code} {words}"));
            }
        }
        Fault::Wrong(format!("a Produce response that does not fit the request: {response:?}"))
    }
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[at..at + N]);
    value
}

/// Good answers to requests with one batch, for servers without a log: encoded once, the numbers filled in.
#[derive(Clone, Debug)]
pub struct AnswerTemplate {
    frame: Vec<u8>,
    index_at: usize,
    base_offset_at: usize,
}

impl AnswerTemplate {
    /// Answers to requests to `topic`.
    ///
    /// # Errors
    /// [`EncodeError`] when there is no such answer in `version`.
    pub fn new(version: i16, topic: &str) -> Result<Self, EncodeError> {
        let frame = encode_good_answer(version, topic, 0, &[(INDEX, BASE_OFFSET)])?;
        let at = |value: &[u8]| {
            let found = frame.windows(value.len()).position(|window| window == value);
            found.expect("the encoding holds what was encoded")
        };
        let (index_at, base_offset_at) = (at(&INDEX.to_be_bytes()), at(&BASE_OFFSET.to_be_bytes()));
        Ok(Self { frame: frame.to_vec(), index_at, base_offset_at })
    }

    /// Appends an answer.
    pub fn append(
        &self,
        outbox: &mut Outbox,
        correlation_id: i32,
        partition: i32,
        base_offset: i64,
    ) {
        let frame = outbox.copy(&self.frame);
        frame[PREFIX_BYTES..][..4].copy_from_slice(&correlation_id.to_be_bytes());
        frame[self.index_at..][..4].copy_from_slice(&partition.to_be_bytes());
        frame[self.base_offset_at..][..8].copy_from_slice(&base_offset.to_be_bytes());
    }
}

/// A good answer's frame, with its length.
fn encode_good_answer(
    version: i16,
    topic: &str,
    correlation_id: i32,
    placed: &[(i32, i64)],
) -> Result<Bytes, EncodeError> {
    let entry = |(partition, base_offset): &(i32, i64)| PartitionProduceResponse {
        index: *partition,
        base_offset: *base_offset,
        log_start_offset: 0,
        ..PartitionProduceResponse::default()
    };
    let response = ProduceResponse {
        responses: vec![TopicProduceResponse {
            name: topic.into(),
            partition_responses: placed.iter().map(entry).collect(),
            ..TopicProduceResponse::default()
        }],
        ..ProduceResponse::default()
    };
    let chunks = encode_response(correlation_id, version, &response)?;
    let length: usize = chunks.iter().map(Bytes::len).sum();
    let prefix = u32::try_from(length).expect("a few entries").to_be_bytes();
    Ok(prefix.into_iter().chain(chunks.into_iter().flatten()).collect::<Vec<u8>>().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(good: &GoodAnswer, frame: &Bytes) -> Option<Vec<(i32, i64)>> {
        let mut found = Vec::new();
        let fits = good.read(&frame[PREFIX_BYTES..], |partition, base_offset| {
            found.push((partition, base_offset));
            true
        });
        fits.then_some(found)
    }

    #[test]
    fn good_answers_are_read_in_every_version() {
        for version in 3..=12 {
            for placed in [vec![(0, 0)], vec![(5, 1 << 40), (2, 7), (9, 0)]] {
                let good = GoodAnswer::new(version, "topic", placed.len()).unwrap();
                let frame = encode_good_answer(version, "topic", 3, &placed).unwrap();
                assert_eq!(read(&good, &frame), Some(placed), "version {version}");
            }
        }
    }

    #[test]
    fn templates_make_good_answers() {
        let good = GoodAnswer::new(12, "topic", 1).unwrap();
        let (mut outbox, mut socket) = (Outbox::default(), Vec::new());
        AnswerTemplate::new(12, "topic").unwrap().append(&mut outbox, 77, 5, 1 << 33);
        assert!(outbox.write_to(&mut socket).unwrap());
        assert_eq!(socket[PREFIX_BYTES..][..4], 77i32.to_be_bytes());
        assert_eq!(read(&good, &socket.into()), Some(vec![(5, 1 << 33)]));
    }

    #[test]
    fn any_other_byte_makes_an_answer_bad() {
        let good = GoodAnswer::new(9, "topic", 1).unwrap();
        let frame = encode_good_answer(9, "topic", 3, &[(1, 2)]).unwrap();
        let mut same = 0;
        for at in PREFIX_BYTES..frame.len() {
            let mut other = frame.to_vec();
            other[at] ^= 0x80;
            if read(&good, &other.into()) == Some(vec![(1, 2)]) {
                same += 1;
            }
        }
        // Correlation id, append time, log start and throttle time are nobody's business here.
        assert_eq!(same, 4 + 8 + 8 + 4);
        assert_eq!(read(&good, &frame.slice(..frame.len() - 1)), None);
        let other_topic = encode_good_answer(9, "tapic", 3, &[(1, 2)]).unwrap();
        assert_eq!(read(&good, &other_topic), None);
    }

    #[test]
    fn a_refusal_is_told_from_nonsense() {
        let good = GoodAnswer::new(9, "topic", 1).unwrap();
        let mut frame = encode_good_answer(9, "topic", 3, &[(0x0102_0304, 2)]).unwrap().to_vec();
        let fault = good.fault(Frame::Small(&frame[PREFIX_BYTES..frame.len() - 1]));
        assert!(matches!(fault, Fault::Wrong(_)), "{fault:?}");
        // The code follows the index; 6 is NOT_LEADER_OR_FOLLOWER.
        let index_at = frame.windows(4).rposition(|bytes| bytes == [1, 2, 3, 4]).unwrap();
        frame[index_at + 5] = 6;
        let fault = good.fault(Frame::Small(&frame[PREFIX_BYTES..]));
        let Fault::Refused(words) = fault else { panic!("{fault:?}") };
        assert!(words.contains("NOT_LEADER_OR_FOLLOWER"), "{words}");
    }
}
