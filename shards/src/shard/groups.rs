//! Coordinators of groups: requests to them from any shard, and the logs that they read.
//!
//! A member that joins may wait for minutes. Were that a call between shards, which has a place among few, such members
//! would keep everybody else from calling. So their requests are taken, which ends the call, and the answer comes as a
//! call of its own in the other direction.

use std::rc::Rc;
use std::time::Duration;

use super::core::{Core, Origin, Parked};
use super::request::{Reply, Request};
use crate::format::record_batch::{Batches, StoredBatch};
use crate::io::local::Slot;
use crate::io::log_reader::{Range, ReadFor};
use crate::machine::coordinators::GroupRead;
use crate::machine::group::{GroupRequest, GroupResponse};
use crate::machine::input::Token;
use crate::model::{LeaderEpoch, ReplicaKey, ShardId};

/// Pause before a log is looked at again that is being cut.
const CUT_PAUSE: Duration = Duration::from_millis(5);

/// Somebody waits for a coordinator on another shard. Dropping it forgets the answer.
#[derive(Debug)]
pub(super) struct GroupWait {
    core: Rc<Core>,
    number: u64,
    slot: Slot<GroupResponse>,
}

impl GroupWait {
    /// Under which the answer comes.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) async fn answer(self) -> GroupResponse {
        self.slot.clone().await
    }
}

impl Drop for GroupWait {
    fn drop(&mut self) {
        self.core.group_waits.borrow_mut().remove(self.number);
    }
}

impl Core {
    pub(super) fn begin_group_wait(&self) -> GroupWait {
        let slot = Slot::default();
        let number = self.group_waits.borrow_mut().insert(slot.clone());
        GroupWait { core: self.me(), number, slot }
    }

    /// Hands a request to the coordinator of a partition.
    pub(super) fn group(
        &self,
        origin: Origin,
        key: ReplicaKey,
        request: GroupRequest,
        answer_to: Option<u64>,
    ) {
        let parked = match (&origin, answer_to) {
            (Origin::Peer(caller), Some(number)) => {
                let shard = caller.shard;
                self.answer(origin, Reply::Taken);
                Parked::GroupOf(shard, number)
            }
            (Origin::Own(_), _) | (Origin::Peer(_), None) => Parked::Group(origin),
        };
        let token = self.park(parked);
        self.drive(|machine, now, out| machine.group_request(now, key, token, request, out));
    }

    /// A coordinator has answered.
    pub(super) fn settle_group(&self, token: Token, response: Box<GroupResponse>) {
        let Some(parked) = self.parked.borrow_mut().remove(token.0) else { return };
        match parked {
            Parked::Group(origin) => self.answer(origin, Reply::Group(response)),
            Parked::GroupOf(shard, answer_to) => self.send_group_answer(shard, answer_to, response),
            other => unreachable!("a coordinator answered {other:?}"),
        }
    }

    fn send_group_answer(&self, shard: ShardId, answer_to: u64, response: Box<GroupResponse>) {
        let core = self.me();
        glommio::spawn_local(async move {
            core.begin_wait();
            let call = core.port.call(shard, Request::GroupAnswer { answer_to, response }).await;
            call.await;
        })
        .detach();
    }

    pub(super) fn take_group_answer(&self, answer_to: u64, response: GroupResponse) {
        // Nobody waits any more whose client has left.
        if let Some(slot) = self.group_waits.borrow_mut().remove(answer_to) {
            slot.fill(response);
        }
    }

    /// Reads a partition for its coordinator, a step at a time.
    pub(super) fn load_groups(&self, key: ReplicaKey, leader_epoch: LeaderEpoch) {
        let core = self.me();
        glommio::spawn_local(async move {
            let begun = core.clock.now().monotonic;
            while core.load_step(key, leader_epoch).await {
                glommio::yield_if_needed().await;
            }
            let micros = core.clock.now().monotonic.since(begun);
            tracing::debug!(partition = %key, epoch = %leader_epoch, micros, "groups are loaded");
        })
        .detach();
    }

    /// Whether there is more.
    async fn load_step(&self, key: ReplicaKey, leader_epoch: LeaderEpoch) -> bool {
        let step =
            self.drive(|machine, now, out| machine.next_group_read(now, key, leader_epoch, out));
        let (end, batches) = match step {
            GroupRead::Done => return false,
            GroupRead::NotYet => {
                glommio::timer::sleep(CUT_PAUSE).await;
                return true;
            }
            GroupRead::Cached(batches) => {
                let Some(end) = batches.last().map(StoredBatch::end_offset) else { return false };
                (end, batches)
            }
            GroupRead::InSegments { offset, end, bytes_max } => {
                let range = Range { offset, end, max_bytes: bytes_max };
                match self.read(key, range, ReadFor::Node).await {
                    Ok(bytes) => (end, stored(&bytes)),
                    Err(error) => {
                        let reason = format!("the log cannot be read: {error}");
                        self.drive(|machine, _, out| {
                            machine.group_log_failed(key, leader_epoch, reason, out);
                        });
                        return false;
                    }
                }
            }
        };
        self.drive(|machine, _, out| {
            machine.group_log_read(key, leader_epoch, end, &batches, out);
        });
        true
    }
}

/// The batches of a piece of a log.
fn stored(bytes: &bytes::Bytes) -> Vec<StoredBatch> {
    Batches::new(bytes)
        .map_while(Result::ok)
        .map_while(|(at, header)| {
            StoredBatch::from_log(bytes.slice(at..at + header.total_bytes)).ok()
        })
        .collect()
}
