//! What a judgement says of the log is so, whatever producers send and whatever becomes of the log.

use proptest::prelude::*;

use super::*;
use crate::format::record_batch::StoredBatch;
use crate::machine::testing::idempotent;
use crate::model::LeaderEpoch;

const PRODUCER: i64 = 7;
const NOW: TimestampMs = TimestampMs(1_000_000);

/// What happens to one partition.
#[derive(Clone, Debug)]
enum Step {
    /// The producer goes on where it left off, or so many records before or behind that.
    Send { from: i32, records: i32 },
    /// It begins a new epoch.
    Renew { records: i32 },
    /// A batch is refused that may be sent again.
    Refuse { from: i32, records: i32 },
    /// So many batches go to segments.
    Flush { batches: usize },
    /// The log loses its last batches.
    Cut { batches: usize },
    /// The process starts again: it knows what the segments had, and what was behind them.
    Restart,
    /// It begins with less: what an older process knew of its producers is not in the checkpoint.
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => (1..4i32).prop_map(|records| Step::Send { from: 0, records }),
        8 => (-40..10i32, 1..6i32).prop_map(|(from, records)| Step::Send { from, records }),
        1 => (1..4i32).prop_map(|records| Step::Renew { records }),
        1 => (-5..10i32, 1..4i32).prop_map(|(from, records)| Step::Refuse { from, records }),
        3 => (1..9usize).prop_map(|batches| Step::Flush { batches }),
        2 => (1..9usize).prop_map(|batches| Step::Cut { batches }),
        1 => Just(Step::Restart),
        1 => Just(Step::Forget),
    ]
}

/// The partition, and the log that it should know.
struct World {
    producers: Producers,
    log: Vec<StoredBatch>,
    flushed: usize,
    epoch: i16,
    /// What the producer takes for its next sequence.
    next: i32,
}

impl World {
    fn end(&self) -> Offset {
        self.log.last().map_or(Offset::ZERO, StoredBatch::end_offset)
    }

    fn send(&mut self, from: i32, records: i32) {
        let first = self.next.wrapping_add(from) & i32::MAX;
        let batch = idempotent(PRODUCER, self.epoch, first, records);
        let stored = StoredBatch::place(batch, self.end(), LeaderEpoch(1));
        let asked = stored.header.idempotence().expect("it names its producer");
        match self.producers.judge(&stored.header) {
            Ok(Verdict::Fresh) => {
                self.producers.appended(&stored.header, NOW);
                self.next = super::next(asked.last_sequence);
                self.log.push(stored);
            }
            Ok(Verdict::Duplicate(original)) => {
                let is_it = |found: &&StoredBatch| found.header.base_offset == original.base_offset;
                let found = self.log.iter().find(is_it).expect("the original is in the log");
                assert_eq!(found.header.idempotence(), Some(asked));
            }
            Ok(Verdict::Older { before }) => {
                let below = self.log.iter().filter(|found| found.end_offset() <= before);
                let of_epoch: Vec<Idempotence> = below
                    .filter_map(|found| found.header.idempotence())
                    .filter(|found| found.producer_epoch == asked.producer_epoch)
                    .collect();
                for sequence in asked.base_sequence..=asked.last_sequence {
                    let has = |one: &Idempotence| {
                        one.base_sequence <= sequence && sequence <= one.last_sequence
                    };
                    assert!(of_epoch.iter().any(has), "{sequence} of {asked:?} is not in the log");
                }
            }
            Err(_) => {}
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Send { from, records } => self.send(*from, *records),
            Step::Renew { records } => {
                self.epoch += 1;
                self.next = 0;
                self.send(0, *records);
            }
            Step::Refuse { from, records } => {
                let first = self.next.wrapping_add(*from) & i32::MAX;
                let batch = idempotent(PRODUCER, self.epoch, first, *records);
                self.producers.refused(&batch.header, NOW);
            }
            Step::Flush { batches } => {
                let end = self.log.len().min(self.flushed + batches);
                self.producers.flushed(self.log[self.flushed..end].iter());
                self.flushed = end;
            }
            Step::Cut { batches } => {
                let kept = self.log.len().saturating_sub(*batches);
                self.log.truncate(kept);
                let end = self.end();
                if kept < self.flushed {
                    self.flushed = kept;
                    self.producers.cut(end);
                    // What the segments' producers are the store tells when it has cut them.
                    let mut told = Producers::default();
                    told.flushed(self.log.iter());
                    self.producers.restore(&told.checkpoint(), self.log[kept..].iter());
                } else {
                    self.producers.replay(self.log[self.flushed..].iter());
                }
            }
            Step::Restart | Step::Forget => {
                let checkpoint = match step {
                    Step::Restart => self.producers.checkpoint(),
                    _ => Vec::new(),
                };
                self.producers = Producers::recovered(&checkpoint);
                self.producers.replay(self.log[self.flushed..].iter());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_called_a_duplicate_is_in_the_log(
        steps in prop::collection::vec(step(), 1..80),
        begin in prop_oneof![3 => Just(0), 1 => Just(i32::MAX - 20)],
    ) {
        let producers = Producers::default();
        let mut world = World { producers, log: Vec::new(), flushed: 0, epoch: 0, next: begin };
        for step in &steps {
            world.take(step);
        }
    }
}
