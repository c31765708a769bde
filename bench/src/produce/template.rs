//! Produce requests that are encoded once; a send changes the correlation id and the batches' numbers.

use std::ops::Range;

use bytes::Bytes;
use chronik_protocol::messages::ProduceRequest;
use chronik_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use chronik_protocol::{EncodeError, Records, encode_request};
use chronik_shards::format::record_batch::HEADER_BYTES;

use super::batch::{BatchTemplate, Stamp};
use crate::engine::Outbox;
use crate::wire::request_header;

/// Length, API key and version come before it.
const CORRELATION_AT: usize = 8;
/// Records shorter than this are copied: a slice of its own would cost the system call more.
const SHARED_BYTES_MIN: usize = 4096;
const TIMEOUT_MS: i32 = 60_000;

/// The batch of one partition in a request.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The partition.
    pub partition: i32,
    /// Where the batch's header stands in the copied piece it is part of.
    at: usize,
    stamp: Stamp,
}

#[derive(Clone, Debug)]
enum Piece {
    /// Bytes of the frame, and which slots' headers are in them.
    Copied {
        bytes: Range<usize>,
        slots: Range<usize>,
    },
    Shared(Range<usize>),
}

/// A Produce request with a batch for each of some partitions.
#[derive(Clone, Debug)]
pub struct ProduceTemplate {
    frame: Bytes,
    pieces: Vec<Piece>,
    slots: Vec<Slot>,
}

impl ProduceTemplate {
    /// Encodes a request to `topic` with these batches, in this order.
    ///
    /// # Errors
    /// [`EncodeError`] when the request has no form in `version`.
    ///
    /// # Panics
    /// Without batches.
    pub fn encode(
        version: i16,
        topic: &str,
        acks: i16,
        batches: &[(i32, &BatchTemplate)],
    ) -> Result<Self, EncodeError> {
        assert!(!batches.is_empty(), "a request has a batch");
        let data = batches.iter().map(|(partition, batch)| {
            let mut records = Records::new();
            records.push(batch.bytes().clone());
            PartitionProduceData {
                index: *partition,
                records: Some(records),
                ..PartitionProduceData::default()
            }
        });
        let request = ProduceRequest {
            acks,
            timeout_ms: TIMEOUT_MS,
            topic_data: vec![TopicProduceData {
                name: topic.into(),
                partition_data: data.collect(),
                ..TopicProduceData::default()
            }],
            ..ProduceRequest::default()
        };
        let chunks = encode_request(request_header(0), version, &request)?;
        let frame: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        let frame = Bytes::from(frame);
        let mut template = Self { frame, pieces: Vec::new(), slots: Vec::new() };
        template.cut(batches);
        Ok(template)
    }

    /// Finds the batches in the frame, and decides what is copied.
    fn cut(&mut self, batches: &[(i32, &BatchTemplate)]) {
        let (mut from, mut at, mut first_slot) = (0, 0, 0);
        for (partition, batch) in batches {
            let found = position(&self.frame[at..], batch.bytes());
            let header = at + found.expect("the encoding holds its batches, in their order");
            self.slots.push(Slot {
                partition: *partition,
                at: header - from,
                stamp: batch.stamp(),
            });
            let end = header + batch.bytes().len();
            let records = header + HEADER_BYTES..end;
            if records.len() >= SHARED_BYTES_MIN {
                let slots = first_slot..self.slots.len();
                self.pieces.push(Piece::Copied { bytes: from..records.start, slots });
                self.pieces.push(Piece::Shared(records));
                (from, first_slot) = (end, self.slots.len());
            }
            at = end;
        }
        let slots = first_slot..self.slots.len();
        self.pieces.push(Piece::Copied { bytes: from..self.frame.len(), slots });
    }

    /// The partitions of the request, in order.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Appends the request with its correlation id and, for each slot, the timestamp that `timestamp_ms` gives it.
    pub fn append(
        &self,
        outbox: &mut Outbox,
        correlation_id: i32,
        mut timestamp_ms: impl FnMut(usize) -> i64,
    ) {
        for (index, piece) in self.pieces.iter().enumerate() {
            match piece {
                Piece::Shared(bytes) => outbox.share(self.frame.slice(bytes.clone())),
                Piece::Copied { bytes, slots } => {
                    let copy = outbox.copy(&self.frame[bytes.clone()]);
                    if index == 0 {
                        copy[CORRELATION_AT..CORRELATION_AT + 4]
                            .copy_from_slice(&correlation_id.to_be_bytes());
                    }
                    for slot in slots.clone() {
                        let Slot { at, stamp, .. } = &self.slots[slot];
                        stamp.write(&mut copy[*at..], timestamp_ms(slot));
                    }
                }
            }
        }
    }
}

fn position(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use chronik_protocol::RequestFrame;
    use chronik_shards::format::compression::Codec;
    use chronik_shards::format::record_batch::ProducedBatch;

    use super::super::batch::BatchShape;
    use super::*;

    fn sent(template: &ProduceTemplate, correlation_id: i32) -> Bytes {
        let (mut outbox, mut socket) = (Outbox::default(), Vec::new());
        template.append(&mut outbox, correlation_id, |slot| 1000 + slot as i64);
        assert!(outbox.write_to(&mut socket).unwrap());
        let length = i32::from_be_bytes(socket[..4].try_into().unwrap());
        assert_eq!(length as usize, socket.len() - 4);
        Bytes::from(socket).slice(4..)
    }

    #[test]
    fn what_is_sent_decodes_to_numbered_valid_batches() {
        for (records, partitions) in
            [(1, vec![3]), (64, vec![0]), (1, vec![7, 5, 6]), (9, vec![1, 0])]
        {
            let shape =
                BatchShape { record_bytes: 1024, records, codec: Codec::None, key_bytes: 0 };
            let batches: Vec<_> = partitions
                .iter()
                .map(|partition| (*partition, BatchTemplate::build(shape, *partition as u64)))
                .collect();
            let batches: Vec<_> = batches.iter().map(|(index, batch)| (*index, batch)).collect();
            let template = ProduceTemplate::encode(9, "topic", -1, &batches).unwrap();
            let frame = RequestFrame::parse(sent(&template, 77)).unwrap();
            assert_eq!(frame.header.correlation_id, 77);
            let request: ProduceRequest = frame.decode().unwrap();
            assert_eq!((request.acks, request.topic_data[0].name.as_str()), (-1, "topic"));
            let data = &request.topic_data[0].partition_data;
            assert_eq!(data.iter().map(|data| data.index).collect::<Vec<_>>(), partitions);
            for (slot, data) in data.iter().enumerate() {
                let bytes = data.records.clone().unwrap().into_bytes();
                let batch = ProducedBatch::check(bytes).unwrap();
                batch.check_records(1 << 20).unwrap();
                assert_eq!(batch.header.base_timestamp.0, 1000 + slot as i64);
            }
        }
    }
}
