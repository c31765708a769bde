//! The proposals of this node that wait for their place in the log.
//!
//! A proposal goes to the controller, which may be another node, and may get lost on the way or with a
//! controller that is deposed. Whoever waits here is proposed again, under the same number, when the
//! controller changes or nothing was heard for a while; the replicated state sees to it that it counts
//! once. What comes of it is known when the entry is applied here.

use std::collections::BTreeMap;

use chronik_shards::machine::metadata::{PROPOSAL_WINDOW, ProposalId};
use chronik_shards::model::{MonotonicMicros, NodeId};

use super::handle::ReplyOnce;

/// First pause before a proposal is sent again; it doubles each time.
const RETRY_MS: u64 = 300;
/// Times that the pause doubles.
const RETRY_DOUBLINGS_MAX: u32 = 4;
/// How long a proposal waits in all.
const PATIENCE_MS: u64 = 15_000;

/// Who was asked: a leader and its term.
pub(super) type Asked = (u64, u64);

struct Waiting {
    command: Vec<u8>,
    reply: ReplyOnce,
    begun: MonotonicMicros,
    /// When and of whom it was asked last; `None` when nobody could be asked.
    asked: Option<(MonotonicMicros, Asked)>,
    attempts: u32,
    /// Waits for ever: the node can do nothing without it.
    is_vital: bool,
}

/// See the module's head.
pub(super) struct OwnProposals {
    node_id: NodeId,
    incarnation: [u8; 16],
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

/// One that is to be proposed.
pub(super) struct Attempt {
    pub(super) number: u64,
    pub(super) context: Vec<u8>,
    pub(super) command: Vec<u8>,
}

impl OwnProposals {
    pub(super) fn new(node_id: NodeId, incarnation: [u8; 16]) -> Self {
        Self { node_id, incarnation, next: 0, waiting: BTreeMap::new() }
    }

    /// Takes a proposal in, and gives its number; the reply back when too many wait.
    pub(super) fn begin(
        &mut self,
        now: MonotonicMicros,
        command: Vec<u8>,
        reply: ReplyOnce,
        is_vital: bool,
    ) -> Result<u64, ReplyOnce> {
        if self.next >= self.floor().saturating_add(PROPOSAL_WINDOW) {
            return Err(reply);
        }
        let number = self.next;
        self.next += 1;
        let waiting = Waiting { command, reply, begun: now, asked: None, attempts: 0, is_vital };
        self.waiting.insert(number, waiting);
        Ok(number)
    }

    /// The proposal as it goes into the log, if it still waits.
    pub(super) fn attempt(&self, number: u64) -> Option<Attempt> {
        let waiting = self.waiting.get(&number)?;
        let id = ProposalId {
            node_id: self.node_id,
            incarnation: self.incarnation,
            number,
            floor: self.floor(),
        };
        Some(Attempt { number, context: id.encode().to_vec(), command: waiting.command.clone() })
    }

    /// Notes of whom it was asked.
    pub(super) fn asked(&mut self, number: u64, now: MonotonicMicros, asked: Option<Asked>) {
        if let Some(waiting) = self.waiting.get_mut(&number) {
            waiting.asked = asked.map(|asked| (now, asked));
            waiting.attempts += u32::from(asked.is_some());
        }
    }

    /// The numbers of those that are to be asked again of `leader`, which may be this node: what that one
    /// was asked in its term is in its log already.
    pub(super) fn due(&self, now: MonotonicMicros, leader: Asked, is_self: bool) -> Vec<u64> {
        let is_due = |waiting: &Waiting| match waiting.asked {
            None => true,
            Some((_, asked)) if asked != leader => true,
            Some((at, _)) => {
                let doublings = waiting.attempts.saturating_sub(1).min(RETRY_DOUBLINGS_MAX);
                !is_self && now.since(at) >= (RETRY_MS * 1000) << doublings
            }
        };
        self.waiting.iter().filter(|(_, one)| is_due(one)).map(|(number, _)| *number).collect()
    }

    /// Takes out those that have waited long enough.
    pub(super) fn overdue(&mut self, now: MonotonicMicros) -> Vec<ReplyOnce> {
        let is_overdue =
            |one: &Waiting| !one.is_vital && now.since(one.begun) >= PATIENCE_MS * 1000;
        let overdue: Vec<u64> =
            self.waiting.iter().filter(|(_, one)| is_overdue(one)).map(|(n, _)| *n).collect();
        overdue.into_iter().filter_map(|number| self.take(number)).collect()
    }

    /// The reply of the proposal that became an entry, if it is one of these.
    pub(super) fn settled(&mut self, id: &ProposalId) -> Option<ReplyOnce> {
        (id.node_id == self.node_id && id.incarnation == self.incarnation)
            .then(|| self.take(id.number))
            .flatten()
    }

    /// Takes out those that `is_settled` says are in the metadata.
    pub(super) fn take_where(&mut self, is_settled: impl Fn(u64) -> bool) -> Vec<ReplyOnce> {
        let settled: Vec<u64> =
            self.waiting.keys().copied().filter(|number| is_settled(*number)).collect();
        settled.into_iter().filter_map(|number| self.take(number)).collect()
    }

    pub(super) fn incarnation(&self) -> [u8; 16] {
        self.incarnation
    }

    fn take(&mut self, number: u64) -> Option<ReplyOnce> {
        self.waiting.remove(&number).map(|waiting| waiting.reply)
    }

    fn floor(&self) -> u64 {
        self.waiting.keys().next().copied().unwrap_or(self.next)
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::{Receiver, unbounded};

    use super::*;
    use crate::control::ControlError;

    const LEADER: Asked = (1, 7);

    type Answers = Receiver<u64>;

    /// `count` proposals that were asked of the leader at time 0, and who gets an answer.
    fn asked(count: u64) -> (OwnProposals, Answers) {
        let mut own = OwnProposals::new(NodeId(1), [9; 16]);
        let (queue, answers) = unbounded();
        for number in 0..count {
            let queue = queue.clone();
            let reply = ReplyOnce::new(Box::new(move |_| _ = queue.send(number)));
            let given = own.begin(MonotonicMicros(0), vec![1], reply, false).ok();
            assert_eq!(given, Some(number));
            own.asked(number, MonotonicMicros(0), Some(LEADER));
        }
        (own, answers)
    }

    fn millis(millis: u64) -> MonotonicMicros {
        MonotonicMicros(millis * 1000)
    }

    #[test]
    fn a_proposal_is_sent_again_after_pauses_that_grow() {
        let (mut own, _answers) = asked(1);
        let mut sent = Vec::new();
        for at in (0..6000).step_by(100).map(millis) {
            for number in own.due(at, LEADER, false) {
                own.asked(number, at, Some(LEADER));
                sent.push(at);
            }
        }
        assert_eq!(sent, [300, 900, 2100, 4500].map(millis));
    }

    #[test]
    fn another_leader_is_asked_at_once_and_this_node_itself_once_a_term() {
        let (mut own, _answers) = asked(2);
        assert_eq!(own.due(millis(10), (2, 8), false), [0, 1]);
        assert_eq!(own.due(millis(9000), LEADER, true), [0; 0], "it is in this node's log");
        own.asked(1, millis(20), None);
        assert_eq!(own.due(millis(30), LEADER, true), [1], "nobody could be asked");
    }

    #[test]
    fn what_is_settled_is_answered_once_and_raises_the_floor() {
        let (mut own, answers) = asked(3);
        let id = |number| ProposalId { node_id: NodeId(1), incarnation: [9; 16], number, floor: 0 };
        assert!(own.settled(&ProposalId { incarnation: [8; 16], ..id(0) }).is_none());
        assert!(own.settled(&ProposalId { node_id: NodeId(2), ..id(0) }).is_none());
        own.settled(&id(1)).unwrap().answer(Err(ControlError::Busy));
        assert!(own.settled(&id(1)).is_none());
        let floor = |own: &OwnProposals, number| {
            ProposalId::decode(&own.attempt(number).unwrap().context).unwrap().floor
        };
        assert_eq!(floor(&own, 2), 0);
        own.settled(&id(0)).unwrap().answer(Err(ControlError::Busy));
        assert_eq!(floor(&own, 2), 2);
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn what_waits_too_long_is_given_up_unless_it_is_vital() {
        let (mut own, _answers) = asked(2);
        let reply = ReplyOnce::new(Box::new(|_| {}));
        assert!(own.begin(millis(0), vec![1], reply, true).is_ok());
        assert_eq!(own.overdue(millis(PATIENCE_MS - 1)).len(), 0);
        assert_eq!(own.overdue(millis(PATIENCE_MS)).len(), 2);
        assert!(own.attempt(0).is_none() && own.attempt(2).is_some());
    }

    #[test]
    fn more_than_the_window_do_not_wait() {
        let (mut own, answers) = asked(PROPOSAL_WINDOW);
        let reply = || ReplyOnce::new(Box::new(|_| {}));
        assert!(own.begin(millis(0), vec![1], reply(), false).is_err());
        drop(own.take_where(|number| number == 5));
        assert!(own.begin(millis(0), vec![1], reply(), false).is_err(), "the oldest holds it up");
        drop(own.take_where(|number| number == 0));
        assert!(own.begin(millis(0), vec![1], reply(), false).is_ok());
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [5, 0], "dropped is answered");
    }
}
