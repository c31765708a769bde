//! Consumers as a [`Traffic`].
//!
//! Each connection reads some partitions, one request under way at a time: the next asks for what comes behind what
//! the last one brought. Offsets must follow one another without a hole. Batches are looked at by their headers; whether
//! their CRCs hold is [`verify`](crate::verify)'s business, which is not in a hurry.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chronik_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use chronik_protocol::messages::{FetchRequest, FetchResponse, ResponseHeader};
use chronik_protocol::{ApiKey, EncodeError, Message, Reader, encode_request};
use chronik_shards::format::record_batch::Batches;
use hdrhistogram::Histogram;

use crate::engine::{Fault, Frame, Outbox, Request, Tally, Traffic, Window, latency_histogram};
use crate::produce::SendTimes;
use crate::wire::{code_name, request_header};

/// The newest version that names topics; the next has their ids instead.
pub const FETCH_VERSION_MAX: i16 = 12;
const CORRELATION_AT: usize = 8;

/// How a consumer asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FetchShape {
    /// Most bytes of an answer.
    pub bytes_max: i32,
    /// Most bytes of a partition in it.
    pub partition_bytes_max: i32,
    /// How long the server may wait for a record.
    pub wait_ms: i32,
    /// Size of a record's value, to count in.
    pub record_bytes: usize,
}

/// What is read of a partition: from its beginning to an end, if it has one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// The partition.
    pub partition: i32,
    /// The offset behind the last record.
    pub until: Option<i64>,
}

/// How far a connection has read a partition.
#[derive(Clone, Debug)]
struct Position {
    partition: i32,
    next_offset: i64,
    /// Where it ends, if it does.
    until: Option<i64>,
    /// Where its offset stands in the request.
    at: usize,
}

#[derive(Clone, Debug)]
struct Consumer {
    request: Bytes,
    positions: Vec<Position>,
}

/// The consumers of one load.
pub struct Fetch {
    topic: String,
    version: i16,
    shape: FetchShape,
    consumers: Vec<Consumer>,
    tail: Option<Tail>,
}

/// What is found out about records that are read while they are written.
struct Tail {
    send_times: Arc<SendTimeTable>,
    /// Batches that were due in it make the latency, batches that came in it the throughput.
    window: Arc<Window>,
    figures: TailFigures,
}

/// How long records took from one side to the other.
#[derive(Debug)]
pub struct TailFigures {
    /// Nanoseconds from when a batch was due to when a consumer had it.
    pub latency: Histogram<u64>,
    /// What came within the window.
    pub measured: Tally,
    /// Batches whose time of sending was not known any more.
    pub unknown: u64,
}

impl Fetch {
    /// Consumers of a topic, without connections yet.
    #[must_use]
    pub fn new(topic: String, version: i16, shape: FetchShape) -> Self {
        Self { topic, version, shape, consumers: Vec::new(), tail: None }
    }

    /// Measures how long records took from their producer.
    #[must_use]
    pub fn tailing(mut self, send_times: Arc<SendTimeTable>, window: Arc<Window>) -> Self {
        let (latency, measured) = (latency_histogram(), Tally::default());
        self.tail = Some(Tail {
            send_times,
            window,
            figures: TailFigures { latency, measured, unknown: 0 },
        });
        self
    }

    /// Adds the consumer of the next connection: what it reads.
    ///
    /// # Errors
    /// [`EncodeError`] when the request has no form in this version.
    pub fn add_consumer(&mut self, spans: &[Span]) -> Result<(), EncodeError> {
        // A number of its own for each offset, by which it is found in the encoding.
        let mark = |index: usize| 0x1f2e_3d4c_5b6a_0000 | index as i64;
        let asked = spans.iter().enumerate().map(|(index, span)| FetchPartition {
            partition: span.partition,
            fetch_offset: mark(index),
            partition_max_bytes: self.shape.partition_bytes_max,
            ..FetchPartition::default()
        });
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: self.shape.wait_ms,
            min_bytes: 1,
            max_bytes: self.shape.bytes_max,
            topics: vec![FetchTopic {
                topic: self.topic.as_str().into(),
                partitions: asked.collect(),
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        };
        let chunks = encode_request(request_header(0), self.version, &request)?;
        let frame: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        let position = |(index, span): (usize, &Span)| Position {
            partition: span.partition,
            next_offset: 0,
            until: span.until,
            at: frame
                .windows(8)
                .position(|bytes| bytes == mark(index).to_be_bytes())
                .expect("the encoding holds what was encoded"),
        };
        let positions = spans.iter().enumerate().map(position).collect();
        self.consumers.push(Consumer { request: frame.into(), positions });
        Ok(())
    }

    /// What was found out about the tail.
    #[must_use]
    pub fn tail_figures(&self) -> Option<&TailFigures> {
        self.tail.as_ref().map(|tail| &tail.figures)
    }

    fn decode(&self, frame: Frame<'_>) -> Result<FetchResponse, Fault> {
        let wrong = |error| Fault::Wrong(format!("no Fetch response: {error}"));
        let mut reader = Reader::new(frame.to_bytes());
        let header_version = ApiKey::Fetch.response_header_version(self.version);
        ResponseHeader::decode(&mut reader, header_version).map_err(wrong)?;
        let response = FetchResponse::decode(&mut reader, self.version).map_err(wrong)?;
        reader.expect_end().map_err(wrong)?;
        match response.error_code {
            0 => Ok(response),
            code => Err(Fault::Refused(code_name(code))),
        }
    }
}

impl Traffic for Fetch {
    fn next_request(
        &mut self,
        connection: usize,
        correlation_id: i32,
        _due_ns: u64,
        outbox: &mut Outbox,
    ) -> Option<Request> {
        let consumer = &self.consumers[connection];
        let is_open =
            |position: &Position| position.until.is_none_or(|until| position.next_offset < until);
        if !consumer.positions.iter().any(is_open) {
            return None;
        }
        let copy = outbox.copy(&consumer.request);
        copy[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&correlation_id.to_be_bytes());
        for position in &consumer.positions {
            let offset = position.next_offset.to_be_bytes();
            copy[position.at..position.at + 8].copy_from_slice(&offset);
        }
        Some(Request { tag: 0, answered: true, moves: Tally::request(0, 0) })
    }

    fn judge(
        &mut self,
        connection: usize,
        _request: &Request,
        frame: Frame<'_>,
        now_ns: u64,
    ) -> Result<Tally, Fault> {
        let response = self.decode(frame)?;
        let mut moved = Tally::request(0, 0);
        for data in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            let partition = data.partition_index;
            if data.error_code != 0 {
                let code = code_name(data.error_code);
                return Err(Fault::Refused(format!("partition {partition}: {code}")));
            }
            let positions = &mut self.consumers[connection].positions;
            let position = positions.iter_mut().find(|position| position.partition == partition);
            let Some(position) = position else {
                return Err(Fault::Wrong(format!(
                    "partition {partition}, which was not asked for"
                )));
            };
            let records = data.records.unwrap_or_default().into_bytes();
            for batch in Batches::new(&records) {
                let (_, header) = batch
                    .map_err(|error| Fault::Wrong(format!("partition {partition}: {error}")))?;
                let (base, due) = (header.base_offset.0, position.next_offset);
                if base != due {
                    let what =
                        format!("partition {partition}: a batch at {base} where {due} is due");
                    return Err(Fault::Wrong(what));
                }
                position.next_offset = header.end_offset().0;
                let count = u64::try_from(header.record_count).unwrap_or(0);
                moved.records += count;
                if let Some(tail) = &mut self.tail {
                    tail.note(partition, header.base_timestamp.0, now_ns);
                }
            }
        }
        moved.bytes = moved.records * self.shape.record_bytes as u64;
        if let Some(tail) = &mut self.tail
            && (tail.window.from_ns()..tail.window.to_ns()).contains(&now_ns)
        {
            tail.figures.measured.add(moved);
        }
        Ok(moved)
    }
}

impl Tail {
    fn note(&mut self, partition: i32, timestamp_ms: i64, now_ns: u64) {
        match self.send_times.due_ns(partition, timestamp_ms) {
            Some(due_ns) if (self.window.from_ns()..self.window.to_ns()).contains(&due_ns) => {
                self.figures.latency.saturating_record(now_ns.saturating_sub(due_ns));
            }
            Some(_) => {}
            None => self.figures.unknown += 1,
        }
    }
}

/// When each batch was due, by the number that it carries: written by producers, read by consumers of the same process.
///
/// Holds the last [`SLOTS`](Self::SLOTS) batches of each partition.
#[derive(Debug)]
pub struct SendTimeTable {
    partitions: Vec<Box<[SendTime]>>,
}

#[derive(Debug, Default)]
struct SendTime {
    timestamp_ms: AtomicU64,
    due_ns: AtomicU64,
}

impl SendTimeTable {
    /// Batches of a partition that may be on their way.
    pub const SLOTS: usize = 1 << 16;

    /// A table for so many partitions.
    #[must_use]
    pub fn new(partitions: usize) -> Self {
        let slots = || (0..Self::SLOTS).map(|_| SendTime::default()).collect();
        Self { partitions: (0..partitions).map(|_| slots()).collect() }
    }

    fn slot(&self, partition: i32, timestamp_ms: i64) -> Option<&SendTime> {
        let slots = self.partitions.get(usize::try_from(partition).ok()?)?;
        slots.get(timestamp_ms.rem_euclid(Self::SLOTS as i64) as usize)
    }

    /// When a batch was due; `None` when its slot belongs to a later one by now.
    #[must_use]
    pub fn due_ns(&self, partition: i32, timestamp_ms: i64) -> Option<u64> {
        let slot = self.slot(partition, timestamp_ms)?;
        let due_ns = slot.due_ns.load(Ordering::Acquire);
        // The number last: a slot that was taken over while it was read has another one.
        (slot.timestamp_ms.load(Ordering::Acquire) == timestamp_ms as u64).then_some(due_ns)
    }
}

impl SendTimes for SendTimeTable {
    fn note(&self, partition: i32, timestamp_ms: i64, due_ns: u64) {
        if let Some(slot) = self.slot(partition, timestamp_ms) {
            slot.timestamp_ms.store(timestamp_ms as u64, Ordering::Release);
            slot.due_ns.store(due_ns, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use chronik_protocol::RequestFrame;

    use super::*;

    #[test]
    fn requests_carry_the_offsets_that_come_next_and_end_where_told() {
        let shape =
            FetchShape { bytes_max: 1000, partition_bytes_max: 10, wait_ms: 5, record_bytes: 1 };
        let mut fetch = Fetch::new("topic".to_owned(), 12, shape);
        let span = |partition, until| Span { partition, until };
        fetch.add_consumer(&[span(3, Some(10)), span(1, None)]).unwrap();
        fetch.add_consumer(&[span(0, Some(5))]).unwrap();
        fetch.consumers[0].positions[0].next_offset = 10;
        fetch.consumers[0].positions[1].next_offset = 7;
        let (mut outbox, mut socket) = (Outbox::default(), Vec::new());
        assert!(fetch.next_request(0, 9, 0, &mut outbox).is_some(), "one has no end");
        assert!(outbox.write_to(&mut socket).unwrap());
        let frame = RequestFrame::parse(Bytes::from(socket).slice(4..)).unwrap();
        assert_eq!(frame.header.correlation_id, 9);
        let request: FetchRequest = frame.decode().unwrap();
        let asked: Vec<(i32, i64)> = request.topics[0]
            .partitions
            .iter()
            .map(|asked| (asked.partition, asked.fetch_offset))
            .collect();
        assert_eq!(asked, [(3, 10), (1, 7)]);
        fetch.consumers[1].positions[0].next_offset = 5;
        assert!(fetch.next_request(1, 9, 0, &mut outbox).is_none(), "all have ended");
    }

    #[test]
    fn send_times_are_known_until_their_slot_is_taken() {
        let table = SendTimeTable::new(2);
        let (first, later) = (1_700_000_000_000, 1_700_000_000_000 + SendTimeTable::SLOTS as i64);
        assert_eq!(table.due_ns(1, first), None);
        table.note(1, first, 77);
        assert_eq!(table.due_ns(1, first), Some(77));
        assert_eq!(table.due_ns(0, first), None);
        table.note(1, later, 99);
        assert_eq!((table.due_ns(1, first), table.due_ns(1, later)), (None, Some(99)));
        table.note(7, first, 1);
        assert_eq!(table.due_ns(7, first), None);
    }
}
