//! Producers as a [`Traffic`].
//!
//! Each connection is a producer: it sends the requests of its route in turn, every batch with the next number of
//! its partition. An answer counts when it has no error and every batch went to a place that can be true: in a partition
//! behind all that this producer was told before.

pub mod answer;
pub mod batch;
pub mod template;

use std::sync::Arc;

use crate::engine::{Fault, Frame, Outbox, Request, Tally, Traffic};
use answer::GoodAnswer;
use batch::Numbering;
use template::ProduceTemplate;

/// A request and the form of its answer.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The request.
    pub request: ProduceTemplate,
    /// The form of the answer.
    pub answer: GoodAnswer,
    /// What it moves.
    pub moves: Tally,
    /// Offsets that each of its batches takes.
    pub batch_offsets: i64,
}

/// Told of every batch that is sent, for whoever wants to know how long it takes to the other side.
pub trait SendTimes: Send + Sync {
    /// A batch with this timestamp is due at `due_ns`.
    fn note(&self, partition: i32, timestamp_ms: i64, due_ns: u64);
}

/// The producers of one load.
pub struct Produce {
    exchanges: Arc<[Exchange]>,
    producers: Vec<Producer>,
    numbering: Numbering,
    acks: i16,
    requests_left: u64,
    send_times: Option<Arc<dyn SendTimes>>,
    /// By partition: the answer that it is still due in.
    due_in: Vec<u64>,
    answers: u64,
}

#[derive(Debug)]
struct Producer {
    /// Its number among all producers of the run.
    number: u64,
    /// Which exchanges, in turn.
    route: Arc<[usize]>,
    next: usize,
    /// Batches sent, by partition.
    sent: Vec<u64>,
    /// Lowest offset that the next batch may get, by partition.
    offset_min: Vec<i64>,
}

impl Produce {
    /// Producers without connections yet.
    #[must_use]
    pub fn new(exchanges: Arc<[Exchange]>, numbering: Numbering, acks: i16) -> Self {
        Self {
            exchanges,
            producers: Vec::new(),
            numbering,
            acks,
            requests_left: u64::MAX,
            send_times: None,
            due_in: Vec::new(),
            answers: 0,
        }
    }

    /// Adds the producer of the next connection: its number, how many partitions there are, which of the
    /// exchanges it sends.
    pub fn add_producer(&mut self, number: u64, partitions: usize, route: Arc<[usize]>) {
        assert!(!route.is_empty(), "a producer has something to send");
        // Producers begin at different places, or all would write to the same partition at a time.
        let next = usize::try_from(number).unwrap_or(0) % route.len();
        let (sent, offset_min) = (vec![0; partitions], vec![0; partitions]);
        self.due_in.resize(self.due_in.len().max(partitions), 0);
        self.producers.push(Producer { number, route, next, sent, offset_min });
    }

    /// Ends after so many requests.
    #[must_use]
    pub const fn limited(mut self, requests: u64) -> Self {
        self.requests_left = requests;
        self
    }

    /// Tells somebody of every batch.
    #[must_use]
    pub fn noting(mut self, send_times: Arc<dyn SendTimes>) -> Self {
        self.send_times = Some(send_times);
        self
    }

    /// For each producer its number, and how many batches it sent to each partition.
    pub fn sent(&self) -> impl Iterator<Item = (u64, &[u64])> {
        self.producers.iter().map(|producer| (producer.number, producer.sent.as_slice()))
    }
}

impl Traffic for Produce {
    fn next_request(
        &mut self,
        connection: usize,
        correlation_id: i32,
        due_ns: u64,
        outbox: &mut Outbox,
    ) -> Option<Request> {
        if self.requests_left == 0 {
            return None;
        }
        let producer = &mut self.producers[connection];
        let index = producer.route[producer.next];
        let exchange = &self.exchanges[index];
        let slots = exchange.request.slots();
        // Beyond its numbers a producer could not be told from another: it ends.
        let has_numbers = slots.iter().all(|slot| {
            let count = producer.sent[slot_index(slot.partition)];
            self.numbering.timestamp_ms(producer.number, count).is_some()
        });
        if !has_numbers {
            return None;
        }
        self.requests_left -= 1;
        producer.next =
            if producer.next + 1 == producer.route.len() { 0 } else { producer.next + 1 };
        exchange.request.append(outbox, correlation_id, |slot| {
            let partition = slots[slot].partition;
            let sent = &mut producer.sent[slot_index(partition)];
            let timestamp = self.numbering.timestamp_ms(producer.number, *sent);
            *sent += 1;
            let timestamp = timestamp.expect("it was just looked at");
            if let Some(times) = &self.send_times {
                times.note(partition, timestamp, due_ns);
            }
            timestamp
        });
        Some(Request { tag: index as u64, answered: self.acks != 0, moves: exchange.moves })
    }

    fn judge(
        &mut self,
        connection: usize,
        request: &Request,
        frame: Frame<'_>,
        _now_ns: u64,
    ) -> Result<Tally, Fault> {
        let index = usize::try_from(request.tag).expect("an index of ours");
        let exchange = &self.exchanges[index];
        self.answers += 1;
        for slot in exchange.request.slots() {
            self.due_in[slot_index(slot.partition)] = self.answers;
        }
        let (due_in, answers) = (&mut self.due_in, self.answers);
        let offset_min = &mut self.producers[connection].offset_min;
        let mut misplaced = None;
        let good = exchange.answer.read(frame.as_slice(), |partition, base_offset| {
            // Servers may answer in another order than they were asked, but each batch once.
            let due = usize::try_from(partition).ok().and_then(|index| due_in.get_mut(index));
            match due {
                Some(due) if *due == answers => *due = 0,
                _ => return false,
            }
            let min = &mut offset_min[slot_index(partition)];
            if base_offset < *min {
                misplaced = Some((partition, base_offset, *min));
                return false;
            }
            *min = base_offset + exchange.batch_offsets;
            true
        });
        if let Some((partition, offset, min)) = misplaced {
            return Err(Fault::Wrong(format!(
                "partition {partition}: base offset {offset}, and {min} is the lowest that can be"
            )));
        }
        if good { Ok(request.moves) } else { Err(exchange.answer.fault(frame)) }
    }
}

fn slot_index(partition: i32) -> usize {
    usize::try_from(partition).expect("partitions are counted from 0")
}
