//! How the Raft group stands: who leads, how far everybody has the log.
//!
//! Only the leader knows. Any other node asks it, in a message of its own; the answer, or that there was
//! none in time, goes to whoever asked on this node.
//!
//! Layout of the answer, in the body of a frame:
//!
//! | offset | size | field |
//! | ---: | ---: | --- |
//! | 0 | 8 | number of the question |
//! | 8 | 4 | leader |
//! | 12 | 8 | its term |
//! | 20 | 8 | log index through which everything is committed |
//! | 28 | 29 each | members: node (4), 1 for a voter or 0 for a learner (1), last index of its log (8), milliseconds since it was heard of (8) and since it had all of the log (8), −1 for never |
//!
//! All numbers are little-endian.

use std::collections::BTreeMap;

use chronik_shards::model::{MonotonicMicros, NodeId};

use super::handle::{ControlError, ReplyOnce};

/// Questions that may wait for the leader's answer.
const ASKING_MAX: usize = 64;
/// How long a question waits.
const PATIENCE_MS: u64 = 2000;

const HEAD_BYTES: usize = 28;
const MEMBER_BYTES: usize = 29;

/// The group as its leader sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuorumState {
    /// Who leads.
    pub leader: NodeId,
    /// Since which term.
    pub term: u64,
    /// Through which log index everything is committed.
    pub committed: u64,
    /// Everybody, the leader included.
    pub members: Vec<MemberState>,
}

/// A member as the leader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberState {
    /// Which node.
    pub node_id: NodeId,
    /// Whether it votes; it learns otherwise.
    pub is_voter: bool,
    /// Through which index it has the log, as far as the leader knows.
    pub last_index: u64,
    /// How long ago it was heard of, if it was.
    pub heard_ms: Option<u64>,
    /// How long ago it had all of the log, if it had.
    pub caught_up_ms: Option<u64>,
}

impl QuorumState {
    pub(super) fn encode(&self, number: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.members.len() * MEMBER_BYTES);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&self.leader.get().to_le_bytes());
        bytes.extend_from_slice(&self.term.to_le_bytes());
        bytes.extend_from_slice(&self.committed.to_le_bytes());
        let since = |ms: Option<u64>| ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(-1);
        for member in &self.members {
            bytes.extend_from_slice(&member.node_id.get().to_le_bytes());
            bytes.push(u8::from(member.is_voter));
            bytes.extend_from_slice(&member.last_index.to_le_bytes());
            bytes.extend_from_slice(&since(member.heard_ms).to_le_bytes());
            bytes.extend_from_slice(&since(member.caught_up_ms).to_le_bytes());
        }
        bytes
    }

    /// The number of the question and the answer, if the bytes are one.
    pub(super) fn decode(bytes: &[u8]) -> Option<(u64, Self)> {
        let (head, members) = bytes.split_at_checked(HEAD_BYTES)?;
        let (members, rest) = members.as_chunks::<MEMBER_BYTES>();
        if !rest.is_empty() {
            return None;
        }
        let members = members.iter().map(member).collect::<Option<_>>()?;
        let (leader, term) = (NodeId(i32::from_le_bytes(array(head, 8)?)), number(head, 12)?);
        let state = Self { leader, term, committed: number(head, 20)?, members };
        Some((number(head, 0)?, state))
    }
}

fn member(bytes: &[u8; MEMBER_BYTES]) -> Option<MemberState> {
    let is_voter = match bytes[4] {
        0 => false,
        1 => true,
        _ => return None,
    };
    let since = |at| Some(u64::try_from(number(bytes, at)?.cast_signed()).ok());
    Some(MemberState {
        node_id: NodeId(i32::from_le_bytes(array(bytes, 0)?)),
        is_voter,
        last_index: number(bytes, 5)?,
        heard_ms: since(13)?,
        caught_up_ms: since(21)?,
    })
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(array(bytes, at)?))
}

/// When a leader last heard of each member, and when that had everything.
#[derive(Default)]
pub(super) struct Contacts {
    heard: BTreeMap<NodeId, MonotonicMicros>,
    caught_up: BTreeMap<NodeId, MonotonicMicros>,
}

impl Contacts {
    pub(super) fn heard(&mut self, node: NodeId, now: MonotonicMicros) {
        self.heard.insert(node, now);
    }

    pub(super) fn caught_up(&mut self, node: NodeId, now: MonotonicMicros) {
        self.caught_up.insert(node, now);
    }

    /// How long ago each was.
    pub(super) fn since(&self, node: NodeId, now: MonotonicMicros) -> (Option<u64>, Option<u64>) {
        let since = |at: Option<&MonotonicMicros>| at.map(|at| now.since(*at) / 1000);
        (since(self.heard.get(&node)), since(self.caught_up.get(&node)))
    }
}

struct Question {
    asked: MonotonicMicros,
    reply: ReplyOnce<QuorumState>,
}

/// The questions of this node that wait for the leader.
#[derive(Default)]
pub(super) struct Questions {
    next: u64,
    waiting: BTreeMap<u64, Question>,
}

impl Questions {
    /// Notes a question, and gives its number; answers it with "busy" when too many wait.
    pub(super) fn begin(
        &mut self,
        now: MonotonicMicros,
        reply: ReplyOnce<QuorumState>,
    ) -> Option<u64> {
        if self.waiting.len() >= ASKING_MAX {
            reply.answer(Err(ControlError::Busy));
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, Question { asked: now, reply });
        Some(number)
    }

    pub(super) fn answer(&mut self, number: u64, state: QuorumState) {
        if let Some(question) = self.waiting.remove(&number) {
            question.reply.answer(Ok(state));
        }
    }

    /// Answers those that have waited long enough.
    pub(super) fn give_up(&mut self, now: MonotonicMicros) {
        while let Some(oldest) = self.waiting.first_entry() {
            if now.since(oldest.get().asked) < PATIENCE_MS * 1000 {
                return;
            }
            oldest.remove().reply.answer(Err(ControlError::TimedOut));
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam::channel::unbounded;

    use super::*;

    fn state() -> QuorumState {
        let one = MemberState {
            node_id: NodeId(1),
            is_voter: true,
            last_index: 9,
            heard_ms: Some(0),
            caught_up_ms: Some(1),
        };
        let two = MemberState {
            node_id: NodeId(2),
            is_voter: false,
            last_index: 7,
            heard_ms: Some(300),
            caught_up_ms: None,
        };
        QuorumState { leader: NodeId(1), term: 4, committed: 8, members: vec![one, two] }
    }

    #[test]
    fn bytes_of_an_answer_never_change() {
        let bytes = state().encode(5);
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "05000000000000000100000004000000000000000800000000000000\
             0100000001090000000000000000000000000000000100000000000000\
             020000000007000000000000002c01000000000000ffffffffffffffff"
        );
        assert_eq!(QuorumState::decode(&bytes), Some((5, state())));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let bytes = state().encode(5);
        for end in (0..bytes.len()).filter(|end| (end + 1) % MEMBER_BYTES != 0) {
            assert_eq!(QuorumState::decode(&bytes[..end]), None, "{end} bytes");
        }
        let mut neither = bytes.clone();
        neither[HEAD_BYTES + 4] = 2;
        assert_eq!(QuorumState::decode(&neither), None);
    }

    #[test]
    fn every_question_is_answered_once_and_in_time() {
        let (queue, answers) = unbounded();
        let reply = |number: usize| {
            let queue = queue.clone();
            ReplyOnce::new(Box::new(move |result| queue.send((number, result)).unwrap()))
        };
        let mut questions = Questions::default();
        let millis = |ms| MonotonicMicros(ms * 1000);
        assert_eq!(questions.begin(millis(0), reply(0)), Some(0));
        assert_eq!(questions.begin(millis(1000), reply(1)), Some(1));
        questions.answer(1, state());
        questions.answer(1, state());
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(1, Ok(state()))]);
        questions.give_up(millis(PATIENCE_MS - 1));
        assert!(answers.try_recv().is_err());
        questions.give_up(millis(PATIENCE_MS));
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(0, Err(ControlError::TimedOut))]);
        for number in 0..ASKING_MAX {
            assert!(questions.begin(millis(0), reply(number)).is_some());
        }
        assert_eq!(questions.begin(millis(0), reply(99)), None);
        assert_eq!(answers.try_iter().collect::<Vec<_>>(), [(99, Err(ControlError::Busy))]);
    }
}
