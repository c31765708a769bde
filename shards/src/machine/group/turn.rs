//! One turn of the coordinator: what it may look at, and where its decisions go.

use super::request::{GroupResponse, Ticket};
use super::settings::GroupSettings;
use super::timers::{Timer, Timers};
use crate::format::group_record::GroupRecord;
use crate::model::{LeaderEpoch, Now};

/// When an answer may leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum After {
    /// At once: it tells nothing that another coordinator would not find.
    Nothing,
    /// When every record that this coordinator has asked for until now, those of the same output included, is
    /// committed on all in-sync replicas.
    Records,
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reply {
    /// To which request.
    pub ticket: Ticket,
    /// What is answered.
    pub response: GroupResponse,
    /// When it may leave.
    pub after: After,
}

/// What comes out of a turn.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// In which epoch of the partition the records are to be appended: in no other.
    pub leader_epoch: LeaderEpoch,
    /// To be appended, in order and as one batch, so that all of them survive or none; and then replayed, before
    /// the next turn.
    pub records: Vec<GroupRecord>,
    /// Answers, to this request or to earlier ones.
    pub replies: Vec<Reply>,
}

/// What a decision may use.
pub(super) struct Turn<'a> {
    pub(super) now: Now,
    pub(super) settings: &'a GroupSettings,
    pub(super) timers: &'a mut Timers,
    pub(super) output: &'a mut Output,
}

impl Turn<'_> {
    pub(super) fn reply(&mut self, ticket: Ticket, response: GroupResponse) {
        self.output.replies.push(Reply { ticket, response, after: After::Nothing });
    }

    pub(super) fn reply_after_records(&mut self, ticket: Ticket, response: GroupResponse) {
        self.output.replies.push(Reply { ticket, response, after: After::Records });
    }

    pub(super) fn record(&mut self, record: GroupRecord) {
        self.output.records.push(record);
    }

    /// Makes `timer` due in `ms` milliseconds; a negative number is now.
    pub(super) fn arm(&mut self, timer: Timer, ms: i32) {
        let at = self.now.monotonic.plus_millis(u64::try_from(ms).unwrap_or(0));
        self.timers.arm(timer, at);
    }
}
