//! Produce requests that wait: which of their batches are not yet where the producer wants them.
//!
//! A request is answered once, when its last partition is decided. A partition's waiters stand in
//! offset order; those of `acks=1` wait for the leader's own position, those of `acks=all` for the
//! high watermark. What is undecided at the deadline is answered as timed out; its waiters stay until
//! their position is reached and then find the request gone.
//!
//! Bounded by what is appended and not yet durable, which the write-ahead log bounds.

use std::collections::VecDeque;

use super::effect::Effect;
use super::input::{Appended, ProduceError, ProduceOutcome, ProduceOutcomes, Token};
use super::queue::pop_front_if;
use crate::model::{Acks, MonotonicMicros, Offset, ReplicaKey};

/// Names a waiting request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestId {
    index: u32,
    generation: u32,
}

/// A batch of a request that waits for a position.
#[derive(Clone, Copy, Debug)]
pub struct AckWaiter {
    /// The position it waits for: the offset after its last record.
    pub end_offset: Offset,
    /// Whose.
    pub request: RequestId,
    /// Which partition of the request.
    pub index: u32,
    /// What to answer.
    pub appended: Appended,
}

/// Waiters of one partition.
#[derive(Debug, Default)]
pub struct AckWaiters {
    leader: VecDeque<AckWaiter>,
    all: VecDeque<AckWaiter>,
}

impl AckWaiters {
    /// Parks a waiter. A duplicate may wait for less than those who came before it.
    pub fn push(&mut self, acks: Acks, waiter: AckWaiter) {
        let queue = match acks {
            Acks::None => unreachable!("acks=0 is answered when it is appended"),
            Acks::Leader => &mut self.leader,
            Acks::All => &mut self.all,
        };
        if queue.back().is_none_or(|last| last.end_offset <= waiter.end_offset) {
            queue.push_back(waiter);
            return;
        }
        let place = queue.partition_point(|other| other.end_offset <= waiter.end_offset);
        queue.insert(place, waiter);
    }

    /// The next waiter whose position is reached.
    pub fn pop(&mut self, own: Offset, high_watermark: Offset) -> Option<AckWaiter> {
        let reached = |queue: &mut VecDeque<AckWaiter>, position: Offset| {
            pop_front_if(queue, |waiter| waiter.end_offset <= position)
        };
        reached(&mut self.leader, own).or_else(|| reached(&mut self.all, high_watermark))
    }

    /// Those that wait for all replicas, when they will not be served.
    pub fn take_all(&mut self) -> impl Iterator<Item = AckWaiter> + use<> {
        std::mem::take(&mut self.all).into_iter()
    }

    /// All waiters, when none of them will be served.
    pub fn take(&mut self) -> impl Iterator<Item = AckWaiter> + use<> {
        let Self { leader, all } = std::mem::take(self);
        leader.into_iter().chain(all)
    }

    /// Panics where one waits for a position that is reached, or out of order.
    pub fn check_invariants(&self, own: Offset, high_watermark: Offset) {
        for (queue, position) in [(&self.leader, own), (&self.all, high_watermark)] {
            let mut ends = queue.iter().map(|waiter| waiter.end_offset);
            assert!(ends.clone().is_sorted(), "acknowledged in offset order");
            assert!(ends.next().is_none_or(|end| end > position), "no one waits for the past");
        }
    }
}

#[derive(Debug)]
struct Request {
    token: Token,
    deadline: MonotonicMicros,
    undecided: u32,
    /// Timed out until decided.
    outcomes: ProduceOutcomes,
}

#[derive(Debug, Default)]
struct Place {
    generation: u32,
    request: Option<Request>,
}

/// The requests that wait.
#[derive(Debug, Default)]
pub struct Requests {
    places: Vec<Place>,
    free: Vec<u32>,
    /// No deadline is earlier. Kept loosely: requests come and go by the million and few time out.
    earliest_deadline: Option<MonotonicMicros>,
}

impl Requests {
    /// Takes a request whose partitions are all undecided.
    pub fn begin(
        &mut self,
        token: Token,
        deadline: MonotonicMicros,
        keys: impl Iterator<Item = ReplicaKey>,
    ) -> RequestId {
        let timed_out = |key| ProduceOutcome { key, result: Err(ProduceError::TimedOut) };
        let outcomes: ProduceOutcomes = keys.map(timed_out).collect();
        let undecided = outcomes.len() as u32;
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place::default());
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        place.request = Some(Request { token, deadline, undecided, outcomes });
        let earliest = self.earliest_deadline.map_or(deadline, |earliest| earliest.min(deadline));
        self.earliest_deadline = Some(earliest);
        RequestId { index, generation: place.generation }
    }

    /// Decides one partition of a request; the last one answers it.
    pub fn decide(
        &mut self,
        id: RequestId,
        index: u32,
        result: Result<Appended, ProduceError>,
        out: &mut Vec<Effect>,
    ) {
        let place = &mut self.places[id.index as usize];
        if place.generation != id.generation {
            return;
        }
        let Some(request) = &mut place.request else { return };
        request.outcomes[index as usize].result = result;
        request.undecided -= 1;
        if request.undecided == 0 {
            self.finish(id.index, out);
        }
    }

    /// Answers a request that has no partitions at all.
    pub fn finish_if_empty(&mut self, id: RequestId, out: &mut Vec<Effect>) {
        let request = self.places[id.index as usize].request.as_ref();
        if request.is_some_and(|request| request.outcomes.is_empty()) {
            self.finish(id.index, out);
        }
    }

    /// When [`expire`](Self::expire) has to be called, at the latest.
    pub fn next_deadline(&self) -> Option<MonotonicMicros> {
        self.earliest_deadline
    }

    /// Answers the requests whose time is up.
    pub fn expire(&mut self, now: MonotonicMicros, out: &mut Vec<Effect>) {
        if self.earliest_deadline.is_none_or(|earliest| earliest > now) {
            return;
        }
        let mut earliest = None;
        for index in 0..self.places.len() {
            let Some(request) = &self.places[index].request else { continue };
            if request.deadline <= now {
                self.finish(index as u32, out);
            } else {
                let deadline = request.deadline;
                earliest =
                    Some(earliest.map_or(deadline, |found: MonotonicMicros| found.min(deadline)));
            }
        }
        self.earliest_deadline = earliest;
    }

    fn finish(&mut self, index: u32, out: &mut Vec<Effect>) {
        let place = &mut self.places[index as usize];
        let Some(request) = place.request.take() else { return };
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index);
        if self.free.len() == self.places.len() {
            self.earliest_deadline = None;
        }
        out.push(Effect::ProduceDone { token: request.token, outcomes: request.outcomes });
    }
}
